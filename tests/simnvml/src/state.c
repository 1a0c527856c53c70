/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the files lie, and appending to the overlays under a lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

static const char *from_environment(const char *name, const char *fallback) {
    const char *value = secure_getenv(name);
    return value && *value ? value : fallback;
}

const char *sim_path_scenario(void) { return from_environment("SIMNVML_CONF", "/etc/simnvml/node.conf"); }

static const char *directory(sim_store store) {
    return store == SIM_VOLATILE ? from_environment("SIMNVML_RUN_DIR", "/run/simnvml")
                                 : from_environment("SIMNVML_VAR_DIR", "/var/lib/simnvml");
}

void sim_path_state(sim_store store, char *out, size_t size) {
    snprintf(out, size, "%s/state.conf", directory(store));
}

/* SIMNVML_EUID lets a test be root, or not, whoever runs it. */
bool sim_is_root(void) {
    const char *text = secure_getenv("SIMNVML_EUID");
    return text && *text ? strtoul(text, NULL, 10) == 0 : geteuid() == 0;
}

static bool write_all(int fd, const char *text, size_t length) {
    while (length > 0) {
        ssize_t done = write(fd, text, length);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        text += done;
        length -= (size_t)done;
    }
    return true;
}

/* The lock is a file of its own because simnvmlctl replaces state.conf by rename. */
nvmlReturn_t sim_state_lock(sim_store store, int *lock) {
    char guard[4096];
    if (!sim_is_root()) return NVML_ERROR_NO_PERMISSION;
    snprintf(guard, sizeof guard, "%s/state.lock", directory(store));
    if (mkdir(directory(store), 0755) != 0 && errno != EEXIST) return NVML_ERROR_OPERATING_SYSTEM;
    *lock = open(guard, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*lock < 0) return NVML_ERROR_OPERATING_SYSTEM;
    if (flock(*lock, LOCK_EX) == 0) return NVML_SUCCESS;
    close(*lock);
    return NVML_ERROR_OPERATING_SYSTEM;
}

void sim_state_unlock(int lock) { close(lock); }

nvmlReturn_t sim_state_append(sim_store store, const char *lines) {
    char path[4096];
    sim_path_state(store, path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    bool done = fd >= 0 && write_all(fd, lines, strlen(lines));
    if (fd >= 0) close(fd);
    return done ? NVML_SUCCESS : NVML_ERROR_OPERATING_SYSTEM;
}

nvmlReturn_t sim_state_write(sim_store store, const char *lines) {
    int lock;
    nvmlReturn_t result = sim_state_lock(store, &lock);
    if (result != NVML_SUCCESS) return result;
    result = sim_state_append(store, lines);
    sim_state_unlock(lock);
    return result;
}

nvmlReturn_t sim_set(const sim_call *call, sim_store store, const char *key, nvml_ull value) {
    char line[SIM_KEY + SIM_VALUE];
    snprintf(line, sizeof line, "gpu.%u.%s = %llu\n", call->gpu, key, value);
    return sim_state_write(store, line);
}
