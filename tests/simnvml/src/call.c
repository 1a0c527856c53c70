/* SPDX-License-Identifier: Apache-2.0
 *
 * Entry and exit of every public function: trace, delays, crashes, injected failures, generation, handles.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <fcntl.h>
#include <unistd.h>

#include "sim.h"

#define MAGIC 0x514d4c00u

static atomic_bool initialised;
static atomic_ulong calls_of_gpu[SIM_MAX_GPUS];

/* Static tables: a handle is valid when it points at an element, so no foreign pointer is ever followed. */
static struct sim_handle devices[SIM_MAX_GPUS];
static struct sim_handle instances[SIM_MAX_GPUS][SIM_MAX_GI];
static struct sim_handle compute[SIM_MAX_GPUS][SIM_MAX_GI][SIM_MAX_CI];
static struct sim_handle migs[SIM_MAX_GPUS][SIM_MAX_GI][SIM_MAX_CI];
static pthread_once_t handles_once = PTHREAD_ONCE_INIT;

static void fill_handles(void) {
    for (unsigned int gpu = 0; gpu < SIM_MAX_GPUS; gpu++) {
        devices[gpu] = (struct sim_handle){MAGIC, SIM_DEVICE, gpu, SIM_NO_INSTANCE, SIM_NO_INSTANCE};
        for (unsigned int gi = 0; gi < SIM_MAX_GI; gi++) {
            instances[gpu][gi] = (struct sim_handle){MAGIC, SIM_GI, gpu, gi, SIM_NO_INSTANCE};
            for (unsigned int ci = 0; ci < SIM_MAX_CI; ci++) {
                compute[gpu][gi][ci] = (struct sim_handle){MAGIC, SIM_CI, gpu, gi, ci};
                migs[gpu][gi][ci] = (struct sim_handle){MAGIC, SIM_MIG, gpu, gi, ci};
            }
        }
    }
}

static bool within(const void *handle, const void *table, size_t size) {
    size_t at = (size_t)((const char *)handle - (const char *)table);
    return (const char *)handle >= (const char *)table && at < size && at % sizeof(struct sim_handle) == 0;
}

bool sim_handle_valid(const void *handle) {
    pthread_once(&handles_once, fill_handles);
    return within(handle, devices, sizeof devices) || within(handle, instances, sizeof instances) ||
           within(handle, compute, sizeof compute) || within(handle, migs, sizeof migs);
}

struct sim_handle *sim_handle_device(unsigned int gpu) {
    pthread_once(&handles_once, fill_handles);
    return &devices[gpu];
}
struct sim_handle *sim_handle_gi(unsigned int gpu, unsigned int gi) { return &instances[gpu][gi]; }
struct sim_handle *sim_handle_ci(unsigned int gpu, unsigned int gi, unsigned int ci) { return &compute[gpu][gi][ci]; }
struct sim_handle *sim_handle_mig(unsigned int gpu, unsigned int gi, unsigned int ci) { return &migs[gpu][gi][ci]; }

void sim_set_initialised(bool up) { atomic_store(&initialised, up); }

/* ---- trace: one line per call, written at once so that lines of several processes never mix ---- */

void sim_trace(const char *function, int gpu) {
    const char *path = secure_getenv("SIMNVML_TRACE");
    if (!path || !*path) return;
    char line[SIM_KEY];
    int length = gpu < 0 ? snprintf(line, sizeof line, "%d %s -\n", (int)getpid(), function)
                         : snprintf(line, sizeof line, "%d %s %d\n", (int)getpid(), function, gpu);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return;
    if (write(fd, line, (size_t)length) < 0) fputs("simnvml: cannot write the trace\n", stderr);
    close(fd);
}

/* ---- injected failures ---- */

/* "nvmlInit_v2" is also found as "init", "nvmlDeviceGetCount_v2" also as "nvmlDeviceGetCount" */
static const char *injected(const sim_snapshot *conf, const char *prefix, const char *function) {
    char key[SIM_KEY];
    snprintf(key, sizeof key, "%s.%s", prefix, function);
    const char *value = sim_lookup(conf, key);
    if (value) return value;
    if (strncmp(function, "nvmlInit", 8) == 0) {
        snprintf(key, sizeof key, "%s.init", prefix);
        return sim_lookup(conf, key);
    }
    char *version = strrchr(key, '_');
    if (!version || version[1] != 'v') return NULL;
    *version = '\0';
    return sim_lookup(conf, key);
}

static void delay(const sim_snapshot *conf, const char *function) {
    const char *text = injected(conf, "delay_ms", function);
    long long ms;
    if (!text) text = sim_lookup(conf, "delay_ms");
    if (!text || !sim_number(text, &ms) || ms <= 0) return;
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0) {
    }
}

static void crash(const sim_snapshot *conf, const char *function) {
    const char *how = injected(conf, "crash", function);
    if (!how) return;
    if (strcmp(how, "hang") == 0) {
        for (;;) pause();
    } else if (strcmp(how, "segv") == 0) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    } else if (strcmp(how, "abort") == 0) {
        abort();
    } else if (strcmp(how, "exit") == 0) {
        _exit(1);
    }
}

static nvmlReturn_t as_error(const char *text) {
    nvmlReturn_t code = NVML_ERROR_UNKNOWN;
    if (!text) return NVML_SUCCESS;
    sim_error_code(*text == '!' ? text + 1 : text, &code);
    return code;
}

static const char *gpu_value(const sim_snapshot *conf, unsigned int gpu, const char *key) {
    char full[SIM_KEY];
    snprintf(full, sizeof full, "gpu.%u.%s", gpu, key);
    const char *value = sim_lookup(conf, full);
    if (value) return value;
    snprintf(full, sizeof full, "gpu.%s", key);
    return sim_lookup(conf, full);
}

/* gpu.N.fail is the state of the GPU; gpu.N.fail_after lets the first n calls of a process through */
nvmlReturn_t sim_gpu_failure(const sim_call *call, unsigned int gpu) {
    unsigned long done = atomic_fetch_add(&calls_of_gpu[gpu], 1);
    const char *failure = gpu_value(call->conf, gpu, "fail");
    if (failure) {
        const char *after = gpu_value(call->conf, gpu, "fail_after");
        long long calls = 0;
        if (!after || !sim_number(after, &calls) || (long long)done >= calls) return as_error(failure);
    }
    char prefix[SIM_KEY];
    snprintf(prefix, sizeof prefix, "gpu.%u.fail", gpu);
    failure = injected(call->conf, prefix, call->function);
    return as_error(failure ? failure : injected(call->conf, "gpu.fail", call->function));
}

/* ---- entry and exit ---- */

static nvmlReturn_t enter(sim_call *call, const char *function, int gpu, bool needs_init) {
    *call = (sim_call){function, NULL, NULL, 0};
    sim_trace(function, gpu);
    if (needs_init && !atomic_load(&initialised)) return NVML_ERROR_UNINITIALIZED;
    call->conf = sim_acquire();
    if (!call->conf) return NVML_ERROR_MEMORY;
    delay(call->conf, function);
    crash(call->conf, function);
    nvmlReturn_t result = as_error(injected(call->conf, "fail", function));
    unsigned int generation = sim_generation(call->conf);
    if (result == NVML_SUCCESS && generation && sim_function_since(function) > generation)
        result = NVML_ERROR_FUNCTION_NOT_FOUND;
    return result == NVML_SUCCESS ? NVML_SUCCESS : sim_leave(call, result);
}

nvmlReturn_t sim_enter_before_init(sim_call *call, const char *function) { return enter(call, function, -1, false); }

nvmlReturn_t sim_enter(sim_call *call, const char *function) { return enter(call, function, -1, true); }

nvmlReturn_t sim_enter_handle(sim_call *call, const char *function, const void *handle, unsigned int kinds) {
    const struct sim_handle *known = sim_handle_valid(handle) ? handle : NULL;
    nvmlReturn_t result = enter(call, function, known ? (int)known->gpu : -1, true);
    if (result != NVML_SUCCESS) return result;
    if (!known || known->magic != MAGIC || known->gpu >= sim_gpu_count(call->conf))
        return sim_leave(call, NVML_ERROR_INVALID_ARGUMENT);
    call->handle = known;
    call->gpu = known->gpu;
    result = sim_gpu_failure(call, call->gpu);
    if (result == NVML_SUCCESS && !(kinds & SIM_KIND(known->kind)))
        result = known->kind == SIM_MIG ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT;
    return result == NVML_SUCCESS ? NVML_SUCCESS : sim_leave(call, result);
}

nvmlReturn_t sim_leave(sim_call *call, nvmlReturn_t result) {
    if (call->conf) sim_release(call->conf);
    call->conf = NULL;
    return result;
}

/* ---- names, and a stub for each function that is not hand-written ---- */

static const struct {
    unsigned int since;
    const char *name;
} functions[] = {
#define SIM_FUNCTION(since, name) {since, #name},
#include "functions.inc"
#undef SIM_FUNCTION
};

unsigned int sim_function_since(const char *function) {
    size_t low = 0, high = sizeof functions / sizeof *functions;
    while (low < high) { /* the list is sorted by name */
        size_t middle = (low + high) / 2;
        int order = strcmp(function, functions[middle].name);
        if (order == 0) return functions[middle].since;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return 0;
}

nvmlReturn_t sim_stub(const char *function, const void *first) {
    sim_call call;
    nvmlReturn_t result = first && sim_handle_valid(first)
                              ? sim_enter_handle(&call, function, first, ~0u)
                              : sim_enter(&call, function);
    return result == NVML_SUCCESS ? sim_leave(&call, NVML_ERROR_NOT_SUPPORTED) : result;
}

SIM_API const char *simnvmlVersion(void) { return SIM_VERSION; }
