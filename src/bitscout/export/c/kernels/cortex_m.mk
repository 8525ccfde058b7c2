
# `make cortex-m` builds an image for a Cortex-M4 without an operating system, `make qemu` runs it
# in QEMU's model of the board MPS2 AN386. Packages: gcc-arm-none-eabi, qemu-system-arm.
# Set the memory of another board here, and the start addresses in cortex_m.ld.
FLASH_BYTES ?= @FLASH_BYTES@
RAM_BYTES ?= @RAM_BYTES@
STACK_BYTES ?= @STACK_BYTES@
ARM_CC ?= arm-none-eabi-gcc
ARM_SIZE ?= arm-none-eabi-size
QEMU ?= qemu-system-arm
ARM_FLAGS ?= -O3
ARM_TARGET = -mcpu=cortex-m4 -mthumb -ffreestanding -fno-tree-loop-distribute-patterns
ARM_LINK = -nostdlib -T cortex_m.ld -Wl,--defsym=FLASH_BYTES=$(FLASH_BYTES) \
	-Wl,--defsym=RAM_BYTES=$(RAM_BYTES) -Wl,--defsym=STACK_BYTES=$(STACK_BYTES)

cortex-m: @NAME@.elf
	$(ARM_SIZE) @NAME@.o @NAME@.elf

@NAME@.o: @NAME@.c @NAME@.h
	$(ARM_CC) $(WARNINGS) $(ARM_TARGET) $(ARM_FLAGS) -c -o $@ @NAME@.c

cortex_m.o: cortex_m.c @NAME@.h @NAME@_vectors.h
	$(ARM_CC) $(WARNINGS) $(ARM_TARGET) $(ARM_FLAGS) -c -o $@ cortex_m.c

@NAME@.elf: @NAME@.o cortex_m.o cortex_m.ld
	$(ARM_CC) $(ARM_TARGET) $(ARM_LINK) -o $@ @NAME@.o cortex_m.o -lgcc

qemu: @NAME@.elf
	$(QEMU) -M mps2-an386 -nographic -monitor none -serial none -icount shift=0 \
	-semihosting-config enable=on,target=native -kernel @NAME@.elf

.PHONY: cortex-m qemu
