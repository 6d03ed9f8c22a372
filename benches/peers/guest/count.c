/* A plugin of QEMU's (TCG): instructions of the guest between two executions of a marker.
 *
 * The marker is nopl 0x7e57ab1e(%rax), which does nothing. What is fetched below 2^47 is the program's; the rest
 * is the kernel's. A line for each marker says how many instructions there were since the last one.
 * QEMU 11.1 takes version 7 of the interface; no header of it is packaged, so what is used of it is declared
 * here. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct scoreboard;
struct block;
struct instruction;
typedef struct {
    struct scoreboard *board;
    size_t offset;
} counter;

extern struct scoreboard *qemu_plugin_scoreboard_new(size_t);
extern uint64_t qemu_plugin_u64_get(counter, unsigned cpu);
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(struct block *, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct instruction *);
extern size_t qemu_plugin_insn_data(const struct instruction *, void *, size_t);
extern void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct instruction *, int op, counter, uint64_t);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *, void (*)(unsigned, void *), int flags, void *);
extern void qemu_plugin_outs(const char *);

#define EXPORT __attribute__((visibility("default")))
#define ADD 0
EXPORT int qemu_plugin_version = 7;

static const uint8_t marker[7] = {0x0f, 0x1f, 0x80, 0x1e, 0xab, 0x57, 0x7e};
static counter user, all;
static uint64_t last_user, last_all;

static void marked(unsigned cpu, void *nothing) {
    uint64_t of_user = qemu_plugin_u64_get(user, cpu), of_all = qemu_plugin_u64_get(all, cpu);
    char line[96];
    (void)nothing;
    snprintf(line, sizeof line, "MARK user %llu kernel %llu\n", (unsigned long long)(of_user - last_user),
             (unsigned long long)(of_all - last_all - (of_user - last_user)));
    qemu_plugin_outs(line);
    last_user = of_user;
    last_all = of_all;
}

static void translated(struct block *block, void *nothing) {
    (void)nothing;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct instruction *one = qemu_plugin_tb_get_insn(block, i);
        uint8_t bytes[16];
        size_t length = qemu_plugin_insn_data(one, bytes, sizeof bytes);
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(one, ADD, all, 1);
        if (qemu_plugin_insn_vaddr(one) >> 47 == 0)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(one, ADD, user, 1);
        if (length == sizeof marker && memcmp(bytes, marker, sizeof marker) == 0)
            qemu_plugin_register_vcpu_insn_exec_cb(one, marked, 0, NULL);
    }
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    user.board = qemu_plugin_scoreboard_new(sizeof(uint64_t));
    all.board = qemu_plugin_scoreboard_new(sizeof(uint64_t));
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
    return 0;
}
