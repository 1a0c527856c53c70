/* SPDX-License-Identifier: Apache-2.0
 *
 * Optional (`make SMI=0` leaves it out): the one private function that lets the real nvidia-smi start.
 *
 * nvidia-smi asks the library for a table of functions. NVIDIA publishes (Apache-2.0) that table's identifier, that its
 * first word is a size, and what five of its slots do. Those five are answered here; of any other slot nothing is
 * known or assumed: one that is called with a device answers NOT_SUPPORTED, one without a device SUCCESS.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

enum {
    SLOTS = 256,
    TABLE_SIZE = 0x1000, /* must exceed 0x288 */
    SLOT_HANDLE_BY_INDEX = 81,
    SLOT_COMPUTE = 213,
    SLOT_GRAPHICS = 214,
    SLOT_MPS = 215,
    SLOT_HOST_PCIE_GENERATION = 230
};

/* one entry of a process list; the name lies inside it, which makes the stride 4128 bytes */
typedef struct {
    unsigned int pid;
    nvml_ull memory;
    unsigned int gi, ci;
    nvml_ull protected_memory;
    char name[4096];
} process_entry;
_Static_assert(sizeof(process_entry) == 4128, "entry stride");
_Static_assert(offsetof(process_entry, name) == 32, "name offset");

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device);

static nvmlReturn_t processes(const char *name, unsigned int slot, const void *device, unsigned int *count,
                              process_entry *entries) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, name, device, SIM_KIND(SIM_DEVICE) | SIM_KIND(SIM_MIG));
    if (result != NVML_SUCCESS) return result;
    sim_process found[SIM_MAX_PROCESSES];
    char type = slot == SLOT_COMPUTE ? 'C' : slot == SLOT_GRAPHICS ? 'G' : 'M';
    unsigned int n = sim_processes(&call, type, found, SIM_MAX_PROCESSES);
    SIM_REQUIRE(count && (entries || n == 0), NVML_ERROR_INVALID_ARGUMENT);
    if (n > *count) n = *count;
    for (unsigned int i = 0; i < n; i++) {
        entries[i].pid = found[i].pid;
        entries[i].memory = found[i].memory;
        entries[i].gi = found[i].gi;
        entries[i].ci = found[i].ci;
        entries[i].protected_memory = 0;
        sim_process_name(found[i].pid, entries[i].name, sizeof entries[i].name);
    }
    *count = n;
    SIM_END(NVML_SUCCESS);
}

static nvmlReturn_t host_generation(const char *name, const void *device, unsigned int *generation) {
    sim_call call;
    nvmlReturn_t result = sim_enter_handle(&call, name, device, SIM_KIND(SIM_DEVICE));
    if (result != NVML_SUCCESS) return result;
    SIM_REQUIRE(generation, NVML_ERROR_INVALID_ARGUMENT);
    SIM_END(sim_uint(&call, generation, "pcie.host_max_gen"));
}

static nvmlReturn_t slot_called(unsigned int slot, void *a, void *b, void *c) {
    char name[32];
    snprintf(name, sizeof name, "slot%u", slot);
    switch (slot) {
    case SLOT_HANDLE_BY_INDEX: return nvmlDeviceGetHandleByIndex_v2((unsigned int)(uintptr_t)a, b);
    case SLOT_COMPUTE:
    case SLOT_GRAPHICS:
    case SLOT_MPS: return processes(name, slot, a, b, c);
    case SLOT_HOST_PCIE_GENERATION: return host_generation(name, a, b);
    default: break;
    }
    bool on_device = sim_handle_valid(a);
    sim_trace(name, on_device ? (int)((struct sim_handle *)a)->gpu : -1);
    return on_device ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

/* one small function per slot, because the slot number is not an argument */
#define SLOT(high, low)                                                                          \
    static nvmlReturn_t slot_##high##_##low(void *a, void *b, void *c) {                          \
        return slot_called(high * 16 + low, a, b, c);                                             \
    }
#define ADDRESS(high, low) (uintptr_t) slot_##high##_##low,
#define ROW(X, high)                                                                             \
    X(high, 0) X(high, 1) X(high, 2) X(high, 3) X(high, 4) X(high, 5) X(high, 6) X(high, 7)       \
    X(high, 8) X(high, 9) X(high, 10) X(high, 11) X(high, 12) X(high, 13) X(high, 14) X(high, 15)
#define ALL(X)                                                                                   \
    ROW(X, 0) ROW(X, 1) ROW(X, 2) ROW(X, 3) ROW(X, 4) ROW(X, 5) ROW(X, 6) ROW(X, 7)               \
    ROW(X, 8) ROW(X, 9) ROW(X, 10) ROW(X, 11) ROW(X, 12) ROW(X, 13) ROW(X, 14) ROW(X, 15)

ALL(SLOT)

SIM_API nvmlReturn_t nvmlInternalGetExportTable(const void **table, const void *identifier) {
    static const unsigned char published[16] = {0xc4, 0xfe, 0x3e, 0x6c, 0xc9, 0x8f, 0x6c, 0x4e,
                                                0xa3, 0x27, 0xee, 0x69, 0x6e, 0x12, 0xf7, 0xc4};
    static const uintptr_t functions[SLOTS] = {ALL(ADDRESS)};
    static uintptr_t slots[SLOTS];
    sim_trace(__func__, -1);
    if (!table || !identifier) return NVML_ERROR_INVALID_ARGUMENT;
    if (memcmp(identifier, published, sizeof published) != 0) return NVML_ERROR_NOT_FOUND;
    memcpy(slots, functions, sizeof slots);
    slots[0] = TABLE_SIZE;
    *table = slots;
    return NVML_SUCCESS;
}
