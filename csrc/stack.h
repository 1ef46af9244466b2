// One call of clipq_run_blocks, and how it is divided.
#pragma once

#include <vector>

#include "blocks.h"
#include "packed_block.h"

namespace clipq {

struct Call {
    const uint8_t* const* blocks;
    int64_t count;
    const float* x;
    Sequences sequences;
    int mask;  // enum clipq_mask
    const int64_t* keep;  // or null
    int64_t kept;
    const clipq_rotary* rotary;  // or null
    float* y;
    const Kernel* kernel;

    const PackedBlock& block(int64_t i) const { return *reinterpret_cast<const PackedBlock*>(blocks[i]); }
    int64_t products() const;
};

// Sequences that go through the blocks together, which of the kept rows are theirs, and where their result goes.
struct Group {
    Sequences sequences;
    const int64_t* keep;
    int64_t kept;
    float* y;
};

// What the sizes of a group's scratch memory follow from: the largest of any block, and of any group.
struct Extent {
    int64_t width = 0, hidden = 0, inner = 0, dim = 0;  // inner: what fc1 gives
    int64_t rows = 0, kept = 0, longest = 0, sequences = 0;
};

// Groups that each go through the stack on one thread, and those that all threads share step by step.
struct Plan {
    std::vector<Group> alone, shared;
};

Plan plan(const Call& call, int threads);

Extent extent_of(const Call& call, const std::vector<Group>& groups);

}  // namespace clipq
