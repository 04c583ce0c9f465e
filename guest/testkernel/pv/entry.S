// The notes by which a domain builder knows us [xen/elfnote.h], the entry, hypercalls, and a way back from faults.
        .macro note type, value
        .section .note.Xen, "a", @note
        .align 4
        .long 4, 8, \type
        .asciz "Xen"
        .quad \value
        .endm
        note 1, start                   // XEN_ELFNOTE_ENTRY
        note 2, hypercall_page          // XEN_ELFNOTE_HYPERCALL_PAGE
        note 3, 0xffffffff80000000      // XEN_ELFNOTE_VIRT_BASE
        note 4, 0                       // XEN_ELFNOTE_PADDR_OFFSET

        .text
        .globl start
start:
        cld
        movq %rsi, %rdi                 // start_info
        leaq stack_end(%rip), %rsp
        call kernel_main                // does not return

        .align 4096
        .globl hypercall_page
hypercall_page:
        .skip 4096

// long attempt(void (*what)(void*), void* argument): -1, or the vector of the exception that ended it.
        .globl attempt
attempt:
        pushq %rbx
        pushq %rbp
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        movq %rsp, recovery(%rip)
        subq $8, %rsp
        movq %rdi, %rax
        movq %rsi, %rdi
        call *%rax
        addq $8, %rsp
        movq $-1, %rax
back:   movq $0, recovery(%rip)
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %rbp
        popq %rbx
        ret

// Exceptions 0 to 31 and INT 0x80, all of them from the kernel: what Xen pushed is of no interest.
        .altmacro
        .macro stub number
        .align 16
        movl $\number, %eax
        jmp common
        .endm
        .align 16
        .globl stubs
stubs:
        .set i, 0
        .rept 32
        stub %i
        .set i, i + 1
        .endr
        stub 128
common:
        cmpq $0, recovery(%rip)
        je 1f
        movq recovery(%rip), %rsp
        jmp back
1:      movl %eax, %edi
        andq $-16, %rsp
        call unexpected_exception       // does not return

// vCPU 1 of two_vcpus.cc: a start with the place for its vector state in RDI, and every exception.
        .globl second_start
second_start:
        fxsave64 (%rdi)
        call second_main                // does not return
        .globl second_fault
second_fault:
        leaq second_stack_end(%rip), %rsp
        call second_faulted             // does not return

// void return_to(const iret_context*): does not return by itself.
        .globl return_to
return_to:
        movq %rdi, %rsp
        movl $23, %eax                  // __HYPERVISOR_iret
        syscall
        ud2

        .data
        .align 8
recovery: .quad 0
        .bss
        .align 16
        .space 65536
stack_end:
        .space 16384
        .globl second_stack_end
second_stack_end:
        .section .note.GNU-stack, "", @progbits
