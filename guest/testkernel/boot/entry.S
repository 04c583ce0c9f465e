// The headers by which a loader knows us, the entry, and what stands between an exception and main.cc.
// [multiboot-0.6.96 §3.1], [xen: docs/misc/pvh.pandoc]: both enter in flat 32-bit protected mode with paging off.
        .code32
#ifdef PVH
        .section .note.Xen, "a", @note
        .align 4
        .long 4, 4, 18          // name size, value size, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start
#else
        .section .multiboot, "a"
        .align 4
        .long 0x1badb002, 3, -(0x1badb002 + 3)  // modules on page boundaries, memory map
#endif

        .text
        .globl start
start:
        cli
        movl $stack_end, %esp
        pushl %ebx              // boot information
        pushl %eax              // Multiboot's magic number
        lgdt gdt_pointer        // the loader's GDT is not ours to count on
        ljmp $8, $1f
1:      movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        call kernel_main        // does not return

// void triple_fault(): an exception with no table to find its handler in.
        .globl triple_fault
triple_fault:
        lidt nothing
        ud2

// Exceptions 0 to 31. Those whose instruction may fail on purpose continue at `recovery`, if it is set.
        .altmacro
        .macro stub number
stub_\number:
        pushl $\number
        jmp common
        .endm
        .set i, 0
        .rept 32
        stub %i
        .set i, i + 1
        .endr

common:
        popl exception_number
        cmpl $0, recovery
        je 1f
        movl exception_number, %eax
        cmpl $8, %eax           // #DF and those from #TS on push an error code, but for #MF, #MC and #XM
        je 2f
        cmpl $10, %eax
        jb 3f
        cmpl $15, %eax
        jae 3f
2:      addl $4, %esp
3:      movl recovery, %eax
        movl %eax, (%esp)
        movl $1, faulted
        iret
1:      call unexpected_exception  // does not return

        .data
        .globl recovery, faulted, exception_number, stub_table
        .align 8
recovery: .long 0
faulted: .long 0
exception_number: .long 0
        .macro entry number
        .long stub_\number
        .endm
stub_table:
        .set i, 0
        .rept 32
        entry %i
        .set i, i + 1
        .endr
        .align 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        .word . - gdt - 1
        .long gdt
nothing:
        .word 0
        .long 0

        .bss
        .align 16
        .space 16384
stack_end:
        .section .note.GNU-stack, "", @progbits
