# From the entry that the loader jumps to, in 32-bit mode without paging, to Rust in 64-bit mode.
# The loader's side is Xen's "PVH" boot protocol, which QEMU's -kernel speaks.

# The note by which the loader finds the entry.
    .section .note.Xen, "a", @note
    .balign 4
    .long 4                     # bytes of the name
    .long 4                     # bytes of the value
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long entry

    .section .text.boot, "ax", @progbits
    .code32
    .globl entry
entry:                          # ebx: physical address of the start info
    cld
    movl $boot_stack_top, %esp

    # The first 4 GiB where they are, in pages of 2 MiB. From 2 GiB on there are devices and no
    # RAM (q35 with at most 2 GiB): uncached there.
    movl $0x83, %eax            # present, writable, 2 MiB
    movl $page_directories, %edi
    movl $2048, %ecx
map:
    movl %eax, %edx
    testl %eax, %eax
    jns cached
    orl $0x18, %edx             # write-through, cache disabled
cached:
    movl %edx, (%edi)           # the upper halves are zero: .bss
    addl $0x200000, %eax
    addl $8, %edi
    loop map

    movl $page_directories + 0x003, page_directory_pointers
    movl $page_directories + 0x1003, page_directory_pointers + 8
    movl $page_directories + 0x2003, page_directory_pointers + 16
    movl $page_directories + 0x3003, page_directory_pointers + 24
    movl $page_directory_pointers + 3, page_map

    movl %cr4, %eax
    orl $0x620, %eax            # PAE; OSFXSR and OSXMMEXCPT, for SSE
    movl %eax, %cr4
    movl $page_map, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # EFER
    rdmsr
    orl $0x100, %eax            # LME: long mode, when paging comes on
    wrmsr
    movl %cr0, %eax
    andl $0xfffffff3, %eax      # neither EM nor TS: SSE does not trap
    orl $0x80010022, %eax       # PG; WP: read-only pages are so for this program too; NE, MP
    movl %eax, %cr0
    lgdt segments_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    fninit
    movl %ebx, %edi
    xorl %ebp, %ebp
    call start                  # fn start(info: u64) -> !
    ud2

# One entry per exception of the CPU, 16 bytes apart: error code (0 where the CPU pushes none),
# number, then on to Rust, which does not return. So nothing needs to be saved.
    .balign 16
    .globl exception_entries
exception_entries:
    .set vector, 0
    .rept 32
    .balign 16
    .if (0x60227d00 >> vector) & 1 == 0
    pushq $0
    .endif
    pushq $vector
    jmp exception_common
    .set vector, vector + 1
    .endr
exception_common:
    movq %rsp, %rdi
    movq %cr2, %rsi
    andq $-16, %rsp
    cld
    call exception              # fn exception(frame: &[u64; 4], address: u64) -> !
    ud2

    .section .data.boot, "aw", @progbits
    .balign 16
    .globl segments
segments:
    .quad 0
    .quad 0x00af9b000000ffff    # code, 64 bits
    .quad 0x00cf93000000ffff    # data
    .quad 0, 0                  # the task state, filled in later
segments_pointer:
    .word segments_pointer - segments - 1
    .long segments
    .long 0

    .section .bss.boot, "aw", @nobits
    .balign 4096
page_map: .skip 4096
page_directory_pointers: .skip 4096
page_directories: .skip 4096 * 4
    .globl exception_stack_top
exception_stack: .skip 16384
exception_stack_top:
boot_stack: .skip 262144
boot_stack_top:
