/* On 32-bit ARM the unwinder reads code on to its return: what it makes of ARM and Thumb code, and
   where it has to give up. Includes the implementation to test its private parts. */
#define CPROF_IMPLEMENTATION
#include "cprof.h"

/* Each is read from its label on; a word of zeros, which is no code, ends it. */
__asm__(".text\n.syntax unified\n.fpu vfpv3-d16\n.arm\n.align 2\n"
        "a_frame: add sp, sp, #532\n vpop {d8-d9}\n pop {r4, r11, pc}\n.word 0\n"
        "a_leaf: add r0, r0, r1\n bx lr\n.word 0\n"
        "a_varargs: pop {r4, lr}\n add sp, sp, #16\n bx lr\n.word 0\n"
        "a_pointer: sub sp, r11, #4\n pop {r11, pc}\n.word 0\n"
        "a_condition: popeq {r4, pc}\n add sp, sp, #8\n pop {r4, pc}\n.word 0\n"
        "a_loop: cmp r0, #0\n beq 1f\n b a_loop\n.word 0\n 1: pop {r4, pc}\n.word 0\n"
        "a_wrapped: cmp r0, #0\n bxeq lr\n push {r4, lr}\n bl a_leaf\n pop {r4, pc}\n.word 0\n"
        "a_whole: push {r4, lr}\n bl a_leaf\n pop {r4, lr}\n b a_leaf\n.word 0\n"
        "a_tail: pop {r4, lr}\n b 1f\n 1: .word 0\n"
        "a_single: ldrd r4, r5, [sp], #8\n ldr pc, [sp], #4\n.word 0\n"
        "a_moved: str r0, [sp, #-8]!\n strd r4, r5, [sp, #-8]!\n add sp, sp, #20\n ldr pc, [sp], #4\n.word 0\n"
        "a_list: ldmib sp, {r4, r11, lr}\n add sp, sp, #16\n bx lr\n.word 0\n"
        "a_plain: ldr lr, [sp, #4]\n add sp, sp, #8\n bx lr\n.word 0\n"
        "a_plt: ldr pc, [r12, #8]!\n.word 0\n"
        "a_exit: mov r7, #1\n svc #0\n.word 0\n"
        "a_noreturn: bl a_leaf\n push {r4, lr}\n pop {r4, pc}\n.word 0\n"
        "a_called: bl a_leaf\n bx lr\n.word 0\n"
        "a_table: ldr pc, [pc, r0, lsl #2]\n.word 0\n"
        "a_row: add pc, pc, r3\n.word 0\n pop {r4, pc}\n.word 0\n"
        "a_aligned: bic sp, sp, #15\n pop {r4, pc}\n.word 0\n"
        ".thumb\n"
        "t_frame: sub sp, #8\n add sp, #16\n vpop {d8}\n pop {r4, r7, pc}\n.align 2\n.word 0\n"
        "t_large: add.w sp, sp, #532\n addw sp, sp, #1001\n sub.w sp, sp, #5\n ldmia.w sp!, {r4-r11, pc}\n.align 2\n.word 0\n"
        "t_leaf: adds r0, #1\n bx lr\n.align 2\n.word 0\n"
        "t_pointer: adds r7, #16\n mov sp, r7\n pop {r7, pc}\n.align 2\n.word 0\n"
        "t_condition: ite ne\n popne {r4, r5, pc}\n addeq.w r0, r0, r1\n add sp, #4\n pop {pc}\n.align 2\n.word 0\n"
        "t_loop: cbz r0, 1f\n b t_loop\n.align 2\n.word 0\n 1: pop {r4, pc}\n.align 2\n.word 0\n"
        "t_far: bne.w 2f\n b.w 1f\n.align 2\n.word 0\n.space 4096\n 1: bl t_leaf\n b t_far_back\n 2: pop {r4, r5, pc}\n"
        "t_far_back: udf #0\n.align 2\n.word 0\n"
        "t_wrapped: cbz r0, 1f\n push {r4, lr}\n bl t_leaf\n pop {r4, pc}\n 1: .align 2\n.word 0\n"
        "t_tail: ldr.w lr, [sp], #4\n b.w 1f\n.align 2\n 1: .word 0\n"
        "t_single: ldrd r4, r5, [sp], #8\n str.w r0, [sp, #-4]!\n add sp, #4\n ldr.w pc, [sp], #4\n.align 2\n.word 0\n"
        "t_to_arm: bx pc\n nop\n.arm\n ldr r12, [r12]\n bx lr\n.word 0\n.thumb\n"
        "t_call: push {r7, lr}\n mov r7, r12\n svc #0\n pop {r7, pc}\n.align 2\n.word 0\n"
        "t_exit: mov.w r12, #1\n mov r0, r3\n bl t_call\n.align 2\n.word 0\n"
        "t_plt: ldr.w pc, [r12]\n.align 2\n.word 0\n"
        "t_jump: ldr.w pc, [r3]\n pop {pc}\n.align 2\n.word 0\n"
        "t_other: push {r7}\n mov r7, r12\n svc #0\n.align 2\n"
        "t_exits: movs r7, #248\n svc #0\n.align 2\n.word 0\n"
        "t_number: mov.w r12, #1\n mov r0, r3\n bl t_other\n pop {pc}\n.align 2\n.word 0\n"
        "t_noreturn: bl t_leaf\n push {r4, lr}\n pop {r4, pc}\n.align 2\n.word 0\n"
        "t_called: blx r3\n bx lr\n.align 2\n.word 0\n"
        "t_table: tbb [r1, r0]\n pop {pc}\n.align 2\n.word 0\n"
        "t_cases: tbb [pc, r0]\n.byte 2, 1\n udf #0\n pop {r4, pc}\n.align 2\n.word 0\n"
        "t_wide_cases: tbh [pc, r0, lsl #1]\n.short 2, 3\n pop {r4, r5, pc}\n.align 2\n.word 0\n"
        "t_unknown: sub.w sp, sp, r3\n pop {r4, pc}\n.align 2\n.word 0\n");

enum { SP = CPROFI_SP, ROOT = 100, NONE = 101 };

/* The CFA is so many bytes above a register, the return address so many below it (0: in r14). */
#define CASES(X) \
    X(a_frame, 0, SP, 560, 4) X(a_leaf, 0, SP, 0, 0) X(a_varargs, 0, SP, 24, 20) X(a_pointer, 0, 11, 4, 4) \
    X(a_condition, 0, SP, 16, 4) X(a_loop, 0, SP, 8, 4) X(a_wrapped, 0, SP, 0, 0) X(a_whole, 0, SP, 0, 0) X(a_tail, 0, SP, 8, 4) \
    X(a_list, 0, SP, 16, 4) X(a_plain, 0, SP, 8, 4) X(a_single, 0, SP, 12, 4) X(a_moved, 0, SP, 8, 4) \
    X(a_plt, 0, SP, 0, 0) X(a_exit, 0, ROOT, 0, 0) X(a_noreturn, 0, NONE, 0, 0) X(a_called, 0, NONE, 0, 0) \
    X(a_table, 0, NONE, 0, 0) X(a_row, 0, SP, 8, 4) X(a_aligned, 0, NONE, 0, 0) X(t_frame, 1, SP, 28, 4) \
    X(t_large, 1, SP, 1564, 4) X(t_leaf, 1, SP, 0, 0) X(t_pointer, 1, 7, 24, 4) X(t_condition, 1, SP, 8, 4) \
    X(t_loop, 1, SP, 8, 4) X(t_far, 1, SP, 12, 4) X(t_wrapped, 1, SP, 0, 0) X(t_tail, 1, SP, 4, 4) \
    X(t_single, 1, SP, 12, 4) X(t_to_arm, 1, SP, 0, 0) X(t_plt, 1, SP, 0, 0) X(t_jump, 1, NONE, 0, 0) \
    X(t_exit, 1, ROOT, 0, 0) X(t_exits, 1, ROOT, 0, 0) X(t_number, 1, SP, 4, 4) X(t_noreturn, 1, NONE, 0, 0) \
    X(t_called, 1, NONE, 0, 0) X(t_table, 1, NONE, 0, 0) X(t_cases, 1, SP, 8, 4) X(t_wide_cases, 1, SP, 12, 4) X(t_unknown, 1, NONE, 0, 0)

#define DECLARE(name, thumb, reg, cfa, below) extern const char name[];
CASES(DECLARE)

static cprofi_unwinder unwinder;
static int failures;

static void test(const char *name, uintptr_t pc, unsigned reg, int cfa, unsigned below) {
    cprofi_rule rule = cprofi_rule_ahead(&unwinder, pc, 0, 0);
    unsigned kind = rule.cfa >> 40 & 0xff, got = rule.cfa >> 32 & 0xff;
    if (kind == CPROFI_RULE_ROOT) got = ROOT;
    else if (kind != CPROFI_RULE_GUESS) got = NONE;
    bool good = got == reg && (reg >= ROOT || ((int32_t)(uint32_t)rule.cfa == cfa && cprofi_rule_ra(rule) == below));
    printf("%sok - %s: register %u + %d, the return address %u below\n", good ? "" : "not ", name, reg, cfa, below);
    if (!good) printf("# register %u + %d, %u below\n", got, (int)(int32_t)(uint32_t)rule.cfa, (unsigned)cprofi_rule_ra(rule));
    failures += !good;
}

int main(void) {
    if (!cprofi_unwind_init(&unwinder)) return 2;
#define TEST(name, thumb, reg, cfa, below) test(#name, ((uintptr_t)name & ~(uintptr_t)1) | thumb, reg, cfa, below);
    CASES(TEST)
    return failures != 0;
}
