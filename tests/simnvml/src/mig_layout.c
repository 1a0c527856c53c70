/* SPDX-License-Identifier: Apache-2.0
 *
 * Where MIG instances lie.
 *
 * A GPU has 8 memory slices and 7 compute slices. gpu.mig.profile.INDEX describes a profile, gpu.N.gi.G an instance
 * ("PROFILE_INDEX START SIZE" in memory slices), gpu.N.gi.G.ci.C a compute instance in it (same form, compute slices).
 */
#include <stdio.h>
#include <string.h>

#include "sim.h"

bool mig_profile_by_index(const sim_call *call, unsigned int index, mig_profile *p) {
    const char *text = sim_raw(call, "mig.profile.%u", index);
    int used = 0;
    memset(p, 0, sizeof *p);
    p->index = index;
    if (!text || sscanf(text, "%u %u %u %u %u %u %u %u %u %u %u %31s %n", &p->id, &p->slices, &p->size, &p->memory_mb,
                        &p->sms, &p->most, &p->copy, &p->decode, &p->encode, &p->jpeg, &p->ofa, p->name, &used) < 12)
        return false;
    for (const char *at = text + used; *at && p->start_count < MIG_SLICES;) {
        if (sscanf(at, "%u%n", &p->starts[p->start_count], &used) != 1) break;
        p->start_count++;
        at += used;
        at += *at == ',';
    }
    return p->start_count > 0;
}

bool mig_profile_by_id(const sim_call *call, unsigned int id, mig_profile *out) {
    for (unsigned int index = 0; index < MIG_PROFILES; index++) {
        if (mig_profile_by_index(call, index, out) && out->id == id) return true;
    }
    return false;
}

static bool read_instance(const char *text, mig_instance *out) {
    *out = (mig_instance){false, 0, 0, 0};
    out->used = text && sscanf(text, "%u %u %u", &out->profile, &out->start, &out->size) == 3;
    return out->used;
}

void mig_instances(const sim_call *call, mig_instance out[SIM_MAX_GI]) {
    for (unsigned int gi = 0; gi < SIM_MAX_GI; gi++) read_instance(sim_raw(call, "gi.%u", gi), &out[gi]);
}

void mig_compute(const sim_call *call, unsigned int gi, mig_instance out[SIM_MAX_CI]) {
    for (unsigned int ci = 0; ci < SIM_MAX_CI; ci++) read_instance(sim_raw(call, "gi.%u.ci.%u", gi, ci), &out[ci]);
}

/* ids follow a binary tree: the whole GPU is 0, its halves 1-2, quarters 3-6, eighths 7-14 */
unsigned int mig_gpu_instance_id(unsigned int start, unsigned int size) {
    unsigned int parts = MIG_SLICES / (size ? size : 1);
    return parts - 1 + start / (size ? size : 1);
}

unsigned int mig_compute_slices(unsigned int profile) {
    static const unsigned int slices[] = {1, 2, 3, 4, 7, 8, 6};
    return profile < sizeof slices / sizeof *slices ? slices[profile] : 0;
}

/* free slices of the aligned block of this size around a place; the eighth slice has memory only */
static unsigned int room_around(const bool busy[MIG_SLICES], unsigned int start, unsigned int size) {
    unsigned int first = start / size * size, room = 0;
    for (unsigned int slice = first; slice < first + size && slice < MIG_SLICES - 1; slice++) room += !busy[slice];
    return room;
}

/* the tightest place: compare the room in ever larger blocks around both */
static bool tighter(const bool busy[MIG_SLICES], unsigned int size, unsigned int a, unsigned int b) {
    for (unsigned int block = size; block <= MIG_SLICES; block *= 2) {
        unsigned int room_a = room_around(busy, a, block), room_b = room_around(busy, b, block);
        if (room_a != room_b) return room_a < room_b;
    }
    return false;
}

unsigned int mig_places(const mig_profile *profile, const mig_instance taken[SIM_MAX_GI], unsigned int *best) {
    bool busy[MIG_SLICES] = {false}, any = false;
    unsigned int free_places = 0, same = 0;
    for (unsigned int gi = 0; gi < SIM_MAX_GI; gi++) {
        if (!taken[gi].used) continue;
        same += taken[gi].profile == profile->index;
        for (unsigned int slice = taken[gi].start; slice < taken[gi].start + taken[gi].size; slice++) {
            if (slice < MIG_SLICES) busy[slice] = true;
        }
    }
    for (unsigned int i = 0; i < profile->start_count && same < profile->most; i++) {
        unsigned int start = profile->starts[i];
        bool fits = start + profile->size <= MIG_SLICES;
        for (unsigned int slice = start; fits && slice < start + profile->size; slice++) fits = !busy[slice];
        if (!fits) continue;
        free_places++;
        if (!any || tighter(busy, profile->size, start, *best)) *best = start;
        any = true;
    }
    unsigned int left = profile->most > same ? profile->most - same : 0;
    return free_places < left ? free_places : left;
}

unsigned int mig_slices_in_use(const mig_instance inside[SIM_MAX_CI]) {
    unsigned int slices = 0;
    for (unsigned int ci = 0; ci < SIM_MAX_CI; ci++) slices += inside[ci].used ? inside[ci].size : 0;
    return slices;
}
