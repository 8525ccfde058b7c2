/* Made by bitscout; do not edit. Runs the test vectors. */
#include "@NAME@.h"
#include "@NAME@_vectors.h"

#include <stdio.h>

int main(void)
{
    static int32_t output[@PREFIX@_OUTPUT_SIZE];
    long wrong = 0;
    int vector, i;
    for (vector = 0; vector < VECTORS; vector++) {
        RUN_VECTOR(vector, output);
        for (i = 0; i < @PREFIX@_OUTPUT_SIZE; i++) {
            wrong += output[i] != expected[vector][i];
        }
    }
    if (wrong != 0) {
        printf("FAIL: %ld of %d outputs differ\n", wrong, VECTORS * @PREFIX@_OUTPUT_SIZE);
        return 1;
    }
    printf("PASS: %d vectors\n", VECTORS);
    return 0;
}
