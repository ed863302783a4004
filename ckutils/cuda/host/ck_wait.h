// What threads wait for: each other, at a barrier of the block or in an operation of the
// warp; and what to say when nobody can go on.
#pragma once
#include "ck_state.h"

namespace {

// Barriers ------------------------------------------------------------------------

void complete_barrier()
{
    barrier_result = votes;
    at_barrier = votes = 0;
    for (Fibre& fibre : fibres) fibre.state = READY;
    moved = true;
}

const Fibre* first_in(State state)
{
    for (const Fibre& fibre : fibres)
        if (fibre.state == state) return &fibre;
    return nullptr;
}

// Warps ---------------------------------------------------------------------------

Fibre* lane_of(const Fibre& self, int lane)
{
    const size_t index = (self.index & ~31) + lane;
    return index < fibres.size() ? &fibres[index] : nullptr;
}

bool takes_part(const Fibre& self, const Fibre* other)
{
    return other && other->state == IN_WARP && other->mask == self.mask &&
           other->operation == self.operation && other->line == self.line;
}

// A lane that has returned, or that the block does not have, is not waited for.
bool everyone_is_here(const Fibre& self)
{
    for (int lane = 0; lane < 32; ++lane) {
        if (!(self.mask >> lane & 1)) continue;
        const Fibre* other = lane_of(self, lane);
        if (other && other->state != FINISHED && !takes_part(self, other)) return false;
    }
    return true;
}

void exchange(Fibre& self)
{
    const Fibre* source = lane_of(self, self.partner);
    const bool named = self.mask >> self.partner & 1;
    if (named && takes_part(self, source)) {
        self.result = source->value;
        return;
    }
    const char* why = !named ? "which its mask does not name"
                      : !source ? "which the block does not have"
                                : "which has returned";
    fail("line %d: a shuffle reads lane %d, %s (%s)", self.line, self.partner, why,
         place_of(self).c_str);
}

void complete_warp(Fibre& self)
{
    unsigned here = 0, ballot = 0, parities = 0;
    for (int lane = 0; lane < 32; ++lane) {
        Fibre* other = lane_of(self, lane);
        if (!(self.mask >> lane & 1) || !takes_part(self, other)) continue;
        here |= 1u << lane;
        ballot |= (unsigned)(other->vote != 0) << lane;
        parities |= (other->syncs & 1) << lane;
    }
    for (int lane = 0; lane < 32; ++lane)
        if (here >> lane & 1 && self.operation == SHUFFLE) exchange(*lane_of(self, lane));
    for (int lane = 0; lane < 32; ++lane) {
        if (!(here >> lane & 1)) continue;
        Fibre& other = *lane_of(self, lane);
        if (self.operation == BALLOT) other.result = ballot;
        other.parities = parities;
        other.state = READY;
    }
    moved = true;
}

// The lanes of its warp that waited only for this one, which has returned, go on.
void stop_waiting_for(const Fibre& gone)
{
    for (int lane = 0; lane < 32; ++lane) {
        Fibre* other = lane_of(gone, lane);
        if (other && other->state == IN_WARP && everyone_is_here(*other))
            complete_warp(*other);
    }
}

void join_warp(Operation operation, unsigned mask, int line)
{
    Fibre& self = *current;
    if (!(mask >> (self.index % 32) & 1)) {
        fail("line %d: %s is called by lane %d, which its mask does not name (%s)", line,
             OPERATION[operation], self.index % 32, place_of(self).c_str);
        abandon();
    }
    self.operation = operation;
    self.mask = mask;
    self.line = line;
    self.state = IN_WARP;
    if (everyone_is_here(self)) complete_warp(self);
    if (self.state != READY || failed()) leave_fibre();
}

// When nobody can go on -------------------------------------------------------------

void explain_warp(const Fibre& self)
{
    for (int lane = 0; lane < 32; ++lane) {
        const Fibre* other = lane_of(self, lane);
        if (!(self.mask >> lane & 1) || !other || other->state == FINISHED ||
            takes_part(self, other))
            continue;
        const char* what = other->state == AT_BARRIER ? "__syncthreads"
                                                      : OPERATION[other->operation];
        fail("line %d: %s waits for lane %d, which waits at %s in line %d (%s)",
             self.line, OPERATION[self.operation], lane, what, other->line,
             place_of(self).c_str);
        return;
    }
}

void explain_standstill()
{
    if (const Fibre* fibre = first_in(IN_WARP)) {
        explain_warp(*fibre);
        return;
    }
    const Fibre* waiting = first_in(AT_BARRIER);
    fail("line %d: __syncthreads is reached by %d of %zu threads; the others have "
         "returned, such as %s",
         waiting->line, at_barrier, fibres.size(), place_of(*first_in(FINISHED)).c_str);
}

void explain_fault()
{
    const char* what = stacks.is_guard(ck_faults.address)
                           ? "the stack of a thread overflows at"
                           : "no argument and no shared array is at";
    fail("%s address %p (%s)", what, ck_faults.address, place_of(*current).c_str);
}

}  // namespace
