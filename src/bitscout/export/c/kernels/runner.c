/* Made by bitscout. Codes of one image after the other in, int32 outputs out, on standard input
 * and output. */
#include "@NAME@.h"

#include <stdio.h>

@INPUTS@
static int32_t output[@PREFIX@_OUTPUT_SIZE];

static int read_image(void)
{
    return @READS@;
}

int main(void)
{
    while (read_image()) {
        @NAME@_run(@ARGUMENTS@, output);
        if (fwrite(output, sizeof output, 1, stdout) != 1) {
            return 1;
        }
    }
    return 0;
}
