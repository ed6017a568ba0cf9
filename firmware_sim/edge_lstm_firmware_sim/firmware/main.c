/* Runs sequences from the file x.bin through the model; outputs to y.bin, findings to found.bin.
 *
 * x.bin holds, for each sequence, its number of steps (int32) and its steps. The first COUNTED
 * steps of the first sequence are called one by one, each between two marks that the counting
 * plugin sees; the rest through NAME_run, CHUNK steps a call. */
#include "model.h"

#include <stdint.h>

#define FIRMWARE __attribute__((section(".firmware")))
#define FIRMWARE_RAM __attribute__((section(".firmware_ram"), aligned(16)))

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 };
enum { STOPPED_BY_APPLICATION = 0x20026 };

extern uint32_t edge_lstm_free_ram[];

static FIRMWARE_RAM MODEL(state_t) state;
static FIRMWARE_RAM MODEL(input_t) x_room[1 + CHUNK * INPUT_VALUES];
static FIRMWARE_RAM MODEL(output_t) y_room[1 + CHUNK * OUTPUT_VALUES];
/* Aligned as their type asks and no better: bytes lie at odd addresses. */
static MODEL(input_t) *const x = x_room + 1;
static MODEL(output_t) *const y = y_room + 1;
static FIRMWARE_RAM uint32_t deepest;

void exit_with(uint32_t code);
void edge_lstm_mark(void);
int main(void);

/* Semihosting: QEMU serves the request whose number is in r0. */
FIRMWARE static uint32_t request(uint32_t number, const void *arguments)
{
    register uint32_t r0 __asm("r0") = number;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

FIRMWARE void exit_with(uint32_t code)
{
    const uint32_t arguments[2] = {STOPPED_BY_APPLICATION, code};
    for (;;) {
        request(SYS_EXIT_EXTENDED, arguments);
    }
}

FIRMWARE static uint32_t open_file(const char *name, uint32_t length, uint32_t mode)
{
    const uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, mode, length};
    return request(SYS_OPEN, arguments);
}

/* SYS_READ and SYS_WRITE return the bytes that they did not move. */
FIRMWARE static uint32_t move(uint32_t call, uint32_t file, const void *data, uint32_t size)
{
    const uint32_t arguments[3] = {file, (uint32_t)(uintptr_t)data, size};
    return request(call, arguments);
}

/* The plugin notes its count whenever this is executed. */
FIRMWARE __attribute__((noinline)) void edge_lstm_mark(void)
{
    __asm volatile("");
}

#define PAINT 0xA5C35A3CU

#define STACK_POINTER(sp) __asm volatile("mov %0, sp" : "=r"(sp))

/* Paints the free stack before a call and looks how far the paint is gone behind it. */
#define MEASURED(call)                                        \
    do {                                                      \
        volatile uint32_t *sp, *word;                         \
        STACK_POINTER(sp);                                    \
        volatile uint32_t *end = sp - PAINTED_WORDS;          \
        if (end < edge_lstm_free_ram) {                       \
            end = edge_lstm_free_ram;                         \
        }                                                     \
        for (word = end; word < sp; word++) {                 \
            *word = PAINT ^ (uint32_t)(uintptr_t)word;        \
        }                                                     \
        call;                                                 \
        word = end;                                           \
        while (word < sp && *word == (PAINT ^ (uint32_t)(uintptr_t)word)) { \
            word++;                                           \
        }                                                     \
        const uint32_t depth = (uint32_t)(sp - word) * 4U;    \
        deepest = depth > deepest ? depth : deepest;          \
    } while (0)

#define COUNTED_CALL(call) (edge_lstm_mark(), (call), edge_lstm_mark())

FIRMWARE int main(void)
{
    const uint32_t in = open_file("x.bin", 5, READ_BINARY);
    const uint32_t out = open_file("y.bin", 5, WRITE_BINARY);
    int32_t steps;
    int32_t counted = COUNTED;
    MEASURED(MODEL(init)(&state));
    while (move(SYS_READ, in, &steps, 4) == 0) {
        MODEL(reset)(&state);
        while (steps > 0) {
            int32_t now = steps < CHUNK ? steps : CHUNK;
#if STREAMS
            if (counted > 0) {
                now = 1;
            }
#endif
            if (move(SYS_READ, in, x, (uint32_t)now * INPUT_VALUES * sizeof *x)) {
                return 2;
            }
            if (counted > 0) {
#if STREAMS
                MEASURED(COUNTED_CALL(MODEL(step)(&state, x, y)));
                counted--;
#else
                MEASURED(COUNTED_CALL(MODEL(run)(&state, x, now, y)));
                counted = 0;
#endif
            } else if (MODEL(run)(&state, x, now, y)) {
                return 3;
            }
            steps -= now;
            const uint32_t rows = WRITES_EVERY_STEP ? (uint32_t)now : (steps == 0 ? 1 : 0);
            if (move(SYS_WRITE, out, y, rows * OUTPUT_VALUES * sizeof *y)) {
                return 2;
            }
        }
        counted = 0;
    }
    const uint32_t found[2] = {(uint32_t)MODEL(selftest)(&state), deepest};
    const uint32_t to = open_file("found.bin", 9, WRITE_BINARY);
    return move(SYS_WRITE, to, found, sizeof found) ? 2 : 0;
}
