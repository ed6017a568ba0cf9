/* Vector table and start-up of a Cortex-M board. */
#include <stdint.h>

extern uint8_t edge_lstm_stack_top[];
extern uint8_t edge_lstm_data_begin[], edge_lstm_data_end[], edge_lstm_data_source[];
extern uint8_t edge_lstm_bss_begin[], edge_lstm_bss_end[];

int main(void);
void exit_with(uint32_t code);
void Reset_Handler(void);
void edge_lstm_start(void);

#define FIRMWARE __attribute__((section(".firmware")))

FIRMWARE void edge_lstm_start(void)
{
    volatile uint8_t *to = edge_lstm_data_begin;
    for (const uint8_t *from = edge_lstm_data_source; to < edge_lstm_data_end; from++) {
        *to++ = *from;
    }
    for (to = edge_lstm_bss_begin; to < edge_lstm_bss_end; to++) {
        *to = 0;
    }
    exit_with((uint32_t)main());
}

/* The FPU and Helium are off at reset, and compilers use them wherever they like: they are
 * switched on (CPACR, full access to CP10 and CP11) before any compiled code runs. */
FIRMWARE __attribute__((naked, noreturn, used)) void Reset_Handler(void)
{
    __asm volatile(
        ".syntax unified\n"
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
        "movw r0, #0xED88\n"
        "movt r0, #0xE000\n"
        "ldr r1, [r0]\n"
        "orr r1, r1, #0x00F00000\n"
        "str r1, [r0]\n"
        "dsb\n"
        "isb\n"
#endif
        "bl edge_lstm_start\n");
}

FIRMWARE static void fault(void)
{
    exit_with(64);
}

typedef void (*handler_t)(void);

__attribute__((section(".vectors"), used)) static const handler_t vectors[16] = {
    (handler_t)(uintptr_t)edge_lstm_stack_top,
    Reset_Handler,
    fault, fault, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault,
};
