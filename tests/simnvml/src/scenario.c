/* SPDX-License-Identifier: Apache-2.0
 *
 * Scenario and overlays -> one immutable table.
 *
 * Every public call takes a reference to the current table. When one of the files changed, the next call builds a
 * new table and swaps the pointer under the lock; calls that hold the old one go on with it, and the last of them
 * frees it. So a caller never sees a half-read file, and no pointer ever dangles.
 */
#define _GNU_SOURCE
#include "sim.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 4 }; /* scenario, mode, persistent overlay, volatile overlay: later files win */

typedef struct {
    bool exists;
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
} signature;

typedef struct {
    const char *key, *value;
} entry;

struct sim_snapshot {
    unsigned int references;
    signature files[FILES];
    char *text[FILES];
    entry *table;
    size_t slots; /* a power of two, at most half full */
    bool managed;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sim_snapshot *current;

static void file_path(int file, char *out, size_t size) {
    if (file == 0) {
        snprintf(out, size, "%s", sim_path_scenario());
    } else if (file == 1) { /* the mode file lies beside the scenario */
        snprintf(out, size, "%s", sim_path_scenario());
        char *slash = strrchr(out, '/');
        size_t stem = slash ? (size_t)(slash + 1 - out) : 0;
        snprintf(out + stem, size - stem, "mode");
    } else {
        sim_path_state(file == 2 ? SIM_PERSISTENT : SIM_VOLATILE, out, size);
    }
}

static signature read_signature(int file) {
    char path[4096];
    struct stat st;
    signature result;
    memset(&result, 0, sizeof result);
    file_path(file, path, sizeof path);
    if (stat(path, &st) == 0) {
        result.exists = true;
        result.device = st.st_dev;
        result.inode = st.st_ino;
        result.size = st.st_size;
        result.changed = st.st_mtim;
    }
    return result;
}

static bool same_signature(const signature *a, const signature *b) {
    return a->exists == b->exists && a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static char *read_file(int file) {
    char path[4096];
    file_path(file, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0, room = 65536;
    char *text = malloc(room);
    if (fd < 0 || !text) {
        if (fd >= 0) close(fd);
        if (text) text[0] = '\0';
        return text;
    }
    for (;;) {
        if (used + 1 >= room) {
            char *bigger = realloc(text, room *= 2);
            if (!bigger) break;
            text = bigger;
        }
        ssize_t got = read(fd, text + used, room - used - 1);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        used += (size_t)got;
    }
    close(fd);
    text[used] = '\0';
    return text;
}

static size_t hash(const char *key) {
    size_t value = 14695981039346656037u;
    for (; *key; key++) value = (value ^ (unsigned char)*key) * 1099511628211u;
    return value;
}

static entry *find_slot(const sim_snapshot *snapshot, const char *key) {
    size_t at = hash(key) & (snapshot->slots - 1);
    while (snapshot->table[at].key && strcmp(snapshot->table[at].key, key) != 0) at = (at + 1) & (snapshot->slots - 1);
    return &snapshot->table[at];
}

static char *trim(char *text) {
    while (isspace((unsigned char)*text)) text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1])) *--end = '\0';
    return text;
}

/* "key = value  # comment"; the comment needs a space before it, so values may hold a '#' */
static void parse(sim_snapshot *snapshot, char *text) {
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = '\0';
        char *comment = strstr(line, " #");
        if (comment) *comment = '\0';
        line = trim(line);
        char *equals = strchr(line, '=');
        if (*line == '#' || !equals) continue;
        *equals = '\0';
        char *key = trim(line);
        if (!*key) continue;
        entry *slot = find_slot(snapshot, key);
        slot->key = key;
        slot->value = trim(equals + 1);
    }
}

static void destroy(sim_snapshot *snapshot) {
    for (int i = 0; i < FILES; i++) free(snapshot->text[i]);
    free(snapshot->table);
    free(snapshot);
}

static sim_snapshot *load(void) {
    sim_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot) return NULL;
    size_t lines = 1;
    for (int i = 0; i < FILES; i++) {
        snapshot->files[i] = read_signature(i);
        snapshot->text[i] = read_file(i);
        for (char *c = snapshot->text[i]; c && *c; c++) lines += *c == '\n';
        lines++;
    }
    for (snapshot->slots = 64; snapshot->slots < 2 * lines; snapshot->slots *= 2) {
    }
    snapshot->table = calloc(snapshot->slots, sizeof *snapshot->table);
    if (!snapshot->table) {
        destroy(snapshot);
        return NULL;
    }
    for (int i = 0; i < FILES; i++) {
        if (!snapshot->text[i]) continue;
        if (i == 1)
            snapshot->managed = strcmp(trim(snapshot->text[i]), "managed") == 0;
        else
            parse(snapshot, snapshot->text[i]);
    }
    return snapshot;
}

static bool stale(const sim_snapshot *snapshot) {
    for (int i = 0; i < FILES; i++) {
        signature now = read_signature(i);
        if (!same_signature(&now, &snapshot->files[i])) return true;
    }
    return false;
}

static void drop(sim_snapshot *snapshot) {
    if (snapshot && --snapshot->references == 0) destroy(snapshot);
}

sim_snapshot *sim_acquire(void) {
    pthread_mutex_lock(&lock);
    if (!current || stale(current)) {
        sim_snapshot *fresh = load();
        if (fresh) {
            fresh->references = 1; /* held by `current` */
            drop(current);
            current = fresh;
        }
    }
    if (current) current->references++;
    sim_snapshot *result = current;
    pthread_mutex_unlock(&lock);
    return result;
}

void sim_release(sim_snapshot *snapshot) {
    pthread_mutex_lock(&lock);
    drop(snapshot);
    pthread_mutex_unlock(&lock);
}

bool sim_present(const sim_snapshot *snapshot) { return snapshot->files[0].exists; }

const char *sim_lookup(const sim_snapshot *snapshot, const char *key) {
    const entry *slot = find_slot(snapshot, key);
    /* "-" in an overlay takes the key away */
    return slot->key && strcmp(slot->value, "-") != 0 ? slot->value : NULL;
}

bool sim_number(const char *text, long long *out) {
    static const struct {
        const char *word;
        long long value;
    } words[] = {{"on", 1},      {"yes", 1}, {"true", 1},  {"enabled", 1},
                 {"off", 0},     {"no", 0},  {"false", 0}, {"disabled", 0}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i].word) == 0) {
            *out = words[i].value;
            return true;
        }
    }
    char *end;
    errno = 0;
    unsigned long long value = *text == '-' ? (unsigned long long)strtoll(text, &end, 0) : strtoull(text, &end, 0);
    if (end == text || *end != '\0' || errno != 0) return false;
    *out = (long long)value;
    return true;
}

/* "@path" stands for the first line of that file */
static bool resolve(const char *value, char *out, size_t size) {
    if (!value) return false;
    if (*value != '@') {
        snprintf(out, size, "%s", value);
        return *out != '\0';
    }
    FILE *file = fopen(value + 1, "re");
    if (!file) return false;
    bool found = fgets(out, (int)size, file) != NULL;
    fclose(file);
    if (!found) return false;
    char *text = trim(out);
    memmove(out, text, strlen(text) + 1);
    return *out != '\0';
}

/* Versions that follow from the branch when nothing else says them. */
static unsigned int branch_cuda(unsigned int branch) {
    static const struct {
        unsigned int branch, cuda;
    } table[] = {{470, 11040}, {510, 11060}, {515, 11070}, {520, 11080}, {525, 12000}, {530, 12010},
                 {535, 12020}, {545, 12030}, {550, 12040}, {555, 12050}, {560, 12060}, {565, 12070},
                 {570, 12080}, {575, 12090}, {580, 13000}, {590, 13010}, {595, 13020}};
    unsigned int cuda = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].branch <= branch) cuda = table[i].cuda;
    }
    return cuda;
}

static bool managed_text(const char *key, char *out, size_t size) {
    char directory[2048], path[4096], library[SIM_VALUE];
    sim_path_state(SIM_VOLATILE, directory, sizeof directory);
    *strrchr(directory, '/') = '\0';
    if (strcmp(key, "driver_version") == 0) {
        snprintf(path, sizeof path, "@%s/kmod_version", directory);
        return resolve(path, out, size);
    }
    snprintf(path, sizeof path, "@%s/lib_version", directory);
    if (!resolve(path, library, sizeof library)) return false;
    unsigned int cuda = branch_cuda((unsigned int)strtoul(library, NULL, 10));
    if (strcmp(key, "lib_version") == 0) {
        snprintf(out, size, "%s", library);
    } else if (strcmp(key, "nvml_version") == 0) {
        snprintf(out, size, "%u.%s", cuda / 1000, library);
    } else if (strcmp(key, "cuda_version") == 0) {
        snprintf(out, size, "%u", cuda);
    } else if (strcmp(key, "generation") == 0) {
        snprintf(out, size, "%lu", strtoul(library, NULL, 10));
    } else {
        return false;
    }
    return true;
}

bool sim_system_text(const sim_snapshot *snapshot, const char *key, char *out, size_t size) {
    static const char *const versions[] = {"driver_version", "lib_version", "nvml_version", "cuda_version",
                                           "generation"};
    /* on a managed node these follow the installed packages, whatever the profile says */
    for (size_t i = 0; snapshot->managed && i < sizeof versions / sizeof *versions; i++) {
        if (strcmp(key, versions[i]) == 0) return managed_text(key, out, size);
    }
    return resolve(sim_lookup(snapshot, key), out, size);
}

unsigned int sim_gpu_count(const sim_snapshot *snapshot) {
    const char *text = sim_lookup(snapshot, "count");
    long long count;
    if (!text || !sim_number(text, &count) || count < 0) return 0;
    return count > SIM_MAX_GPUS ? SIM_MAX_GPUS : (unsigned int)count;
}

unsigned int sim_generation(const sim_snapshot *snapshot) {
    char text[SIM_VALUE];
    if (sim_system_text(snapshot, "generation", text, sizeof text)) return (unsigned int)strtoul(text, NULL, 10);
    if (sim_system_text(snapshot, "lib_version", text, sizeof text)) return (unsigned int)strtoul(text, NULL, 10);
    return 0;
}

nvmlReturn_t sim_driver_state(const sim_snapshot *snapshot) {
    char driver[SIM_VALUE], library[SIM_VALUE];
    if (!sim_system_text(snapshot, "driver_version", driver, sizeof driver)) return NVML_ERROR_DRIVER_NOT_LOADED;
    if (sim_system_text(snapshot, "lib_version", library, sizeof library) && strcmp(driver, library) != 0)
        return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    return NVML_SUCCESS;
}
