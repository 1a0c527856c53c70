/* SPDX-License-Identifier: Apache-2.0
 *
 * Values of one GPU. "N/A" is NOT_SUPPORTED, "!NAME" is that NVML error, "@file" is the first line of a file.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

static const char *lookup(const sim_call *call, const char *format, va_list arguments) {
    char name[SIM_KEY], key[SIM_KEY + 16];
    vsnprintf(name, sizeof name, format, arguments);
    snprintf(key, sizeof key, "gpu.%u.%s", call->gpu, name);
    const char *value = sim_lookup(call->conf, key);
    if (value) return value;
    snprintf(key, sizeof key, "gpu.%s", name);
    return sim_lookup(call->conf, key);
}

static nvmlReturn_t check(const char *value) {
    nvmlReturn_t code = NVML_ERROR_UNKNOWN;
    if (!value || strcmp(value, "N/A") == 0) return NVML_ERROR_NOT_SUPPORTED;
    if (*value != '!') return NVML_SUCCESS;
    sim_error_code(value + 1, &code);
    return code;
}

static nvmlReturn_t number(const char *value, long long *out) {
    char line[SIM_VALUE];
    nvmlReturn_t result = check(value);
    if (result != NVML_SUCCESS) return result;
    if (*value == '@') {
        FILE *file = fopen(value + 1, "re");
        bool found = file && fgets(line, sizeof line, file);
        if (file) fclose(file);
        if (!found) return NVML_ERROR_NOT_SUPPORTED;
        line[strcspn(line, " \t\r\n")] = '\0';
        value = line;
    }
    return sim_number(value, out) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

#define WITH_ARGUMENTS(statement)   \
    va_list arguments;              \
    va_start(arguments, format);    \
    statement;                      \
    va_end(arguments)

const char *sim_raw(const sim_call *call, const char *format, ...) {
    WITH_ARGUMENTS(const char *value = lookup(call, format, arguments));
    return value;
}

nvmlReturn_t sim_text(const sim_call *call, char *out, size_t size, const char *format, ...) {
    WITH_ARGUMENTS(const char *value = lookup(call, format, arguments));
    nvmlReturn_t result = check(value);
    if (result != NVML_SUCCESS) return result;
    if (strlen(value) >= size) return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(out, value, strlen(value) + 1);
    return NVML_SUCCESS;
}

nvmlReturn_t sim_ull(const sim_call *call, nvml_ull *out, const char *format, ...) {
    long long found = 0;
    WITH_ARGUMENTS(nvmlReturn_t result = number(lookup(call, format, arguments), &found));
    if (result == NVML_SUCCESS) *out = (nvml_ull)found;
    return result;
}

nvmlReturn_t sim_uint(const sim_call *call, unsigned int *out, const char *format, ...) {
    long long found = 0;
    WITH_ARGUMENTS(nvmlReturn_t result = number(lookup(call, format, arguments), &found));
    if (result == NVML_SUCCESS) *out = (unsigned int)found;
    return result;
}

nvmlReturn_t sim_int(const sim_call *call, int *out, const char *format, ...) {
    long long found = 0;
    WITH_ARGUMENTS(nvmlReturn_t result = number(lookup(call, format, arguments), &found));
    if (result == NVML_SUCCESS) *out = (int)found;
    return result;
}

nvml_ull sim_or(const sim_call *call, nvml_ull fallback, const char *format, ...) {
    long long found = 0;
    WITH_ARGUMENTS(nvmlReturn_t result = number(lookup(call, format, arguments), &found));
    return result == NVML_SUCCESS ? (nvml_ull)found : fallback;
}

nvmlReturn_t sim_first(nvmlReturn_t a, nvmlReturn_t b) { return a != NVML_SUCCESS ? a : b; }

nvmlReturn_t sim_list_room(unsigned int *count, unsigned int needed, const void *buffer) {
    unsigned int room = *count;
    *count = needed;
    return (needed > 0 && !buffer) || room < needed ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}
