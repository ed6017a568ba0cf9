/* A QEMU plugin: counts the instructions executed in a range of addresses, and writes the count
 * so far, one a line, each time a certain address is executed.
 *
 * Arguments: begin=, end= (of the range), mark= (the address), out= (the file to write).
 * QEMU exports these functions to plugins; Debian's package has no header for them. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
typedef uint64_t qemu_plugin_id_t;

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block,
    void (*callback)(unsigned int, void *), int flags, void *data);
void qemu_plugin_register_atexit_cb(
    qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, void *), void *data);

/* The loader looks these two up by name. */
int qemu_plugin_version = PLUGIN_VERSION;
int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **arguments);

static uint64_t begin, end, mark, executed;
static FILE *out;

static void on_block(unsigned int cpu, void *instructions)
{
    (void)cpu;
    executed += (uintptr_t)instructions;
}

static void on_mark(unsigned int cpu, void *data)
{
    (void)cpu;
    (void)data;
    fprintf(out, "%" PRIu64 "\n", executed);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    const uint64_t address = qemu_plugin_tb_vaddr(block);
    if (address == mark) {
        qemu_plugin_register_vcpu_tb_exec_cb(block, on_mark, 0, NULL);
    } else if (address >= begin && address < end) {
        const uintptr_t instructions = qemu_plugin_tb_n_insns(block);
        qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, 0, (void *)instructions);
    }
}

static void on_exit(qemu_plugin_id_t id, void *data)
{
    (void)id;
    (void)data;
    fclose(out);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **arguments)
{
    (void)info;
    for (int i = 0; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (value == NULL) {
            return 1;
        }
        *value++ = '\0';
        if (strcmp(arguments[i], "begin") == 0) {
            begin = strtoull(value, NULL, 0);
        } else if (strcmp(arguments[i], "end") == 0) {
            end = strtoull(value, NULL, 0);
        } else if (strcmp(arguments[i], "mark") == 0) {
            mark = strtoull(value, NULL, 0);
        } else if (strcmp(arguments[i], "out") == 0) {
            out = fopen(value, "w");
        }
    }
    if (out == NULL) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
