/* SPDX-License-Identifier: Apache-2.0
 *
 * What the source files of the simulated NVML share: the immutable scenario snapshot, handles, the entry and exit
 * of every public function, and writing state.
 */
#ifndef SIMNVML_SIM_H
#define SIMNVML_SIM_H

#include <stdbool.h>
#include <stddef.h>

#include "nvml_types.h"

#define SIM_API __attribute__((visibility("default")))
#define SIM_VERSION "1.0"
#define SIM_MAX_GPUS 64
#define SIM_MAX_GI 16
#define SIM_MAX_CI 8
#define SIM_MAX_LINKS 36
#define SIM_MAX_PROCESSES 64
#define SIM_KEY 160
#define SIM_VALUE 512
#define SIM_NO_INSTANCE 0xFFFFFFFFu

/* ---- scenario.c: the scenario and its overlays as one immutable table ---- */

typedef struct sim_snapshot sim_snapshot;

sim_snapshot *sim_acquire(void);
void sim_release(sim_snapshot *snapshot);
/* The value of a key, or NULL when it is absent. Valid until the snapshot is released. */
const char *sim_lookup(const sim_snapshot *snapshot, const char *key);
bool sim_present(const sim_snapshot *snapshot);
/* A system value with "@file" resolved and the managed mode applied; false when it is absent. */
bool sim_system_text(const sim_snapshot *snapshot, const char *key, char *out, size_t size);
bool sim_number(const char *text, long long *out);
unsigned int sim_gpu_count(const sim_snapshot *snapshot);
/* The driver branch that decides which functions exist; 0 means all of them. */
unsigned int sim_generation(const sim_snapshot *snapshot);
nvmlReturn_t sim_driver_state(const sim_snapshot *snapshot);

/* ---- call.c: handles, entry, exit, failure injection ---- */

typedef enum { SIM_DEVICE = 1, SIM_MIG, SIM_GI, SIM_CI } sim_kind;

struct sim_handle {
    unsigned int magic;
    sim_kind kind;
    unsigned int gpu, gi, ci;
};

typedef struct {
    const char *function;
    sim_snapshot *conf;
    const struct sim_handle *handle;
    unsigned int gpu;
} sim_call;

struct sim_handle *sim_handle_device(unsigned int gpu);
struct sim_handle *sim_handle_mig(unsigned int gpu, unsigned int gi, unsigned int ci);
struct sim_handle *sim_handle_gi(unsigned int gpu, unsigned int gi);
struct sim_handle *sim_handle_ci(unsigned int gpu, unsigned int gi, unsigned int ci);
bool sim_handle_valid(const void *handle);

void sim_set_initialised(bool up);
nvmlReturn_t sim_enter_before_init(sim_call *call, const char *function);
nvmlReturn_t sim_enter(sim_call *call, const char *function);
/* kinds is a mask of 1u << sim_kind */
nvmlReturn_t sim_enter_handle(sim_call *call, const char *function, const void *handle, unsigned int kinds);
nvmlReturn_t sim_leave(sim_call *call, nvmlReturn_t result);
nvmlReturn_t sim_gpu_failure(const sim_call *call, unsigned int gpu);
nvmlReturn_t sim_stub(const char *function, const void *first);
void sim_trace(const char *function, int gpu);

#define SIM_KIND(kind) (1u << (kind))
#define SIM_BEGIN()                                               \
    sim_call call;                                                \
    nvmlReturn_t result = sim_enter(&call, __func__);             \
    if (result != NVML_SUCCESS) return result
#define SIM_BEGIN_HANDLE(handle, kinds)                                      \
    sim_call call;                                                           \
    nvmlReturn_t result = sim_enter_handle(&call, __func__, handle, kinds);  \
    if (result != NVML_SUCCESS) return result
#define SIM_BEGIN_DEVICE(device) SIM_BEGIN_HANDLE(device, SIM_KIND(SIM_DEVICE))
#define SIM_BEGIN_ANY(device) SIM_BEGIN_HANDLE(device, SIM_KIND(SIM_DEVICE) | SIM_KIND(SIM_MIG))
#define SIM_END(value) return sim_leave(&call, value)
#define SIM_REQUIRE(condition, code) \
    if (!(condition)) SIM_END(code)

/* ---- value.c: values of one GPU: gpu.N.key, then gpu.key, then NOT_SUPPORTED ---- */

#define SIM_PRINTF(a, b) __attribute__((format(printf, a, b)))
const char *sim_raw(const sim_call *call, const char *format, ...) SIM_PRINTF(2, 3);
nvmlReturn_t sim_text(const sim_call *call, char *out, size_t size, const char *format, ...) SIM_PRINTF(4, 5);
nvmlReturn_t sim_ull(const sim_call *call, nvml_ull *out, const char *format, ...) SIM_PRINTF(3, 4);
nvmlReturn_t sim_uint(const sim_call *call, unsigned int *out, const char *format, ...) SIM_PRINTF(3, 4);
nvmlReturn_t sim_int(const sim_call *call, int *out, const char *format, ...) SIM_PRINTF(3, 4);
/* the number, or a default when it is absent or an error */
nvml_ull sim_or(const sim_call *call, nvml_ull fallback, const char *format, ...) SIM_PRINTF(3, 4);
/* first error wins; for functions that fill several fields */
nvmlReturn_t sim_first(nvmlReturn_t a, nvmlReturn_t b);
/* two-call list protocol: tells the caller the count, or that the buffer is too small */
nvmlReturn_t sim_list_room(unsigned int *count, unsigned int needed, const void *buffer);

/* ---- state.c: the overlays that setters write ---- */

typedef enum { SIM_VOLATILE, SIM_PERSISTENT } sim_store;
nvmlReturn_t sim_state_write(sim_store store, const char *lines);
/* for a change that depends on what is there: lock, look again, append, unlock */
nvmlReturn_t sim_state_lock(sim_store store, int *lock);
nvmlReturn_t sim_state_append(sim_store store, const char *lines);
void sim_state_unlock(int lock);
const char *sim_path_scenario(void);
void sim_path_state(sim_store store, char *out, size_t size);
bool sim_is_root(void);
nvmlReturn_t sim_set(const sim_call *call, sim_store store, const char *key, nvml_ull value);

/* ---- errors.c ---- */

bool sim_error_code(const char *name, nvmlReturn_t *code);

/* ---- functions.inc through call.c ---- */

unsigned int sim_function_since(const char *function);

/* ---- shared by processes.c, mig.c and smi.c ---- */

typedef struct {
    unsigned int pid, gi, ci;
    char type;
    nvml_ull memory;
} sim_process;
unsigned int sim_processes(const sim_call *call, char type, sim_process *out, unsigned int room);
void sim_process_name(unsigned int pid, char *out, size_t size);
nvml_ull sim_process_memory(const sim_call *call);
/* ---- mig_layout.c: MIG profiles and instances of one GPU ---- */

enum { MIG_PROFILES = 18, MIG_SLICES = 8 };
typedef struct {
    unsigned int index, id, slices, size, memory_mb, sms, most, copy, decode, encode, jpeg, ofa;
    char name[32];
    unsigned int starts[MIG_SLICES], start_count;
} mig_profile;
typedef struct {
    bool used;
    unsigned int profile, start, size;
} mig_instance;
bool mig_profile_by_index(const sim_call *call, unsigned int index, mig_profile *out);
bool mig_profile_by_id(const sim_call *call, unsigned int id, mig_profile *out);
void mig_instances(const sim_call *call, mig_instance out[SIM_MAX_GI]);
void mig_compute(const sim_call *call, unsigned int gi, mig_instance out[SIM_MAX_CI]);
/* free places for a profile, the one the driver would take first; returns how many */
unsigned int mig_places(const mig_profile *profile, const mig_instance taken[SIM_MAX_GI], unsigned int *best);
unsigned int mig_gpu_instance_id(unsigned int start, unsigned int size);
unsigned int mig_compute_slices(unsigned int profile);

/* entry of every function of a GPU instance: a handle of a destroyed one is no longer valid */
#define SIM_BEGIN_GI(instance)                                                                        \
    SIM_BEGIN_HANDLE(instance, SIM_KIND(SIM_GI));                                                     \
    mig_instance taken[SIM_MAX_GI], inside[SIM_MAX_CI];                                               \
    mig_profile profile;                                                                              \
    unsigned int gi = call.handle->gi;                                                                \
    mig_instances(&call, taken);                                                                      \
    mig_compute(&call, gi, inside);                                                                   \
    SIM_REQUIRE(taken[gi].used && mig_profile_by_index(&call, taken[gi].profile, &profile),           \
                NVML_ERROR_INVALID_ARGUMENT)

unsigned int mig_slices_in_use(const mig_instance inside[SIM_MAX_CI]);

/* ---- mig_device.c ---- */

nvmlReturn_t sim_mig_memory(const sim_call *call, nvml_ull *bytes);
nvmlReturn_t sim_mig_uuid(const sim_call *call, char *out, size_t size);
nvmlReturn_t sim_mig_name(const sim_call *call, char *out, size_t size);

#endif
