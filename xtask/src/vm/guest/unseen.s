# Opens four files by ways that do not return through open(2): the 32-bit table of system calls, a file handle, io_uring,
# and a worker of io_uring. Exits with 0, or with the number of the step that failed.
#
# Assembly, because none of these can be done without unsafe code or another compiler; `as` and `ld` are of binutils.
# Numbers of calls are of arch/x86/entry/syscalls/syscall_{32,64}.tbl, layouts of include/uapi/linux/io_uring.h.

        .globl _start
        .text
_start:
        # Step 1: open(by_32, O_RDONLY), number 5 of the 32-bit table.
        mov     $1, %r15d
        mov     $5, %eax
        mov     $by_32, %ebx
        xor     %ecx, %ecx
        xor     %edx, %edx
        int     $0x80
        test    %eax, %eax
        js      failed

        # Step 2: name_to_handle_at(AT_FDCWD, by_handle, &handle, &mount, 0).
        mov     $2, %r15d
        mov     $303, %eax
        mov     $-100, %rdi
        mov     $by_handle, %rsi
        mov     $handle, %rdx
        mov     $mount, %r10
        xor     %r8d, %r8d
        syscall
        test    %rax, %rax
        js      failed
        # Step 3: open(directory, O_RDONLY | O_DIRECTORY), for its mount.
        mov     $3, %r15d
        mov     $2, %eax
        mov     $directory, %rdi
        mov     $0x10000, %esi
        syscall
        test    %rax, %rax
        js      failed
        # Step 4: open_by_handle_at(directory, &handle, O_RDONLY).
        mov     $4, %r15d
        mov     %rax, %rdi
        mov     $304, %eax
        mov     $handle, %rsi
        xor     %edx, %edx
        syscall
        test    %rax, %rax
        js      failed

        # Step 5: io_uring_setup(4, &params).
        mov     $5, %r15d
        mov     $425, %eax
        mov     $4, %edi
        mov     $params, %rsi
        syscall
        test    %rax, %rax
        js      failed
        mov     %rax, %r12
        # Step 6: both rings, mapped at once (IORING_FEAT_SINGLE_MMAP, 5.4), and the entries.
        mov     $6, %r15d
        xor     %r9d, %r9d
        call    map
        mov     %rax, %r13
        mov     $0x10000000, %r9d
        call    map
        mov     %rax, %r14
        # Step 7: by the thread itself.
        mov     $7, %r15d
        mov     $by_ring, %rdi
        xor     %esi, %esi
        call    submit
        # Step 8: IOSQE_ASYNC, by a worker.
        mov     $8, %r15d
        mov     $by_worker, %rdi
        mov     $16, %esi
        call    submit
        xor     %r15d, %r15d
failed:
        mov     $231, %eax
        mov     %r15d, %edi
        syscall

# A page of the ring at offset %r9.
map:    mov     $9, %eax
        xor     %edi, %edi
        mov     $4096, %esi
        mov     $3, %edx
        mov     $0x8001, %r10d
        mov     %r12, %r8
        syscall
        cmp     $-4095, %rax
        jae     failed
        ret

# Has the ring open the file %rdi read-only, with flags %sil, and waits for the answer.
submit: xor     %eax, %eax
        mov     $8, %ecx
        mov     %rdi, %rbx
        mov     %r14, %rdi
        rep stosq
        movb    $18, (%r14)
        movb    %sil, 1(%r14)
        movl    $-100, 4(%r14)
        movq    %rbx, 16(%r14)
        # The next place of the queue refers to entry 0.
        mov     params+44, %eax
        lea     (%r13, %rax), %rcx
        mov     (%rcx), %edx
        mov     %edx, %ebp
        and     $3, %edx
        mov     params+64, %eax
        lea     (%r13, %rax), %rax
        movl    $0, (%rax, %rdx, 4)
        incl    (%rcx)
        # io_uring_enter(ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0).
        mov     $426, %eax
        mov     %r12, %rdi
        mov     $1, %esi
        mov     $1, %edx
        mov     $1, %r10d
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        syscall
        cmp     $1, %rax
        jne     failed
        # The answers stand in the order of the questions.
        mov     params+100, %eax
        lea     (%r13, %rax), %rax
        shl     $4, %rbp
        cmpl    $0, 8(%rax, %rbp)
        jl      failed
        # Taken.
        mov     params+80, %eax
        incl    (%r13, %rax)
        ret

        .data
directory:
        .asciz  "/tmp/unseen"
by_32:  .asciz  "/tmp/unseen/by-32"
by_handle:
        .asciz  "/tmp/unseen/by-handle"
by_ring:
        .asciz  "/tmp/unseen/by-ring"
by_worker:
        .asciz  "/tmp/unseen/by-worker"
        .balign 8
# struct file_handle: how many bytes there are, type, bytes.
handle: .int    128
        .int    0
        .zero   128
mount:  .int    0
        .balign 8
params: .zero   120
        .section .note.GNU-stack, "", @progbits
