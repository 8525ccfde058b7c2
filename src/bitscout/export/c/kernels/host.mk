# Made by bitscout; do not edit. `make test` compiles the network and runs its test vectors.
CC ?= cc
CFLAGS ?= -O2
WARNINGS = -std=c99 -Wall -Wextra -Wpedantic -Wconversion

test: @NAME@_test
	./@NAME@_test

@NAME@_test: @NAME@.c @NAME@.h @NAME@_test.c @NAME@_vectors.h
	$(CC) $(WARNINGS) $(CFLAGS) -o $@ @NAME@.c @NAME@_test.c

clean:
	rm -f @NAME@_test *.o *.elf

.PHONY: test clean
