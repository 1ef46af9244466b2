// Softmax attention of one head by integer products. Queries and keys are int8, each row with a scale of its own, so
// scores are products of the linears' kind. Shares are whole numbers, the largest of a row about 2^15, and values
// are whole numbers up to 255 with a scale for each channel: both fit an int16, and their products are added in
// pairs. (Shares of one byte are too coarse: most keys get far less than the largest one. With these, all keys whose
// shares round to nothing have less than keys / 65000 of the weight between them, also beside a key that takes nearly
// everything.) A row is divided by the sum of its shares after rounding, so that the weights of a mean sum to one.
#pragma once

#include "int8_scores.h"
#include "mixing.h"
#include "shares.h"

namespace {

template <class Isa>
struct IntegerAttend {
    using Act = typename Isa::Act;
    using Head = IntegerHead<Isa>;
    using Scores = IntegerScores<Isa>;
    using Values = Mixing<Isa>;
    static constexpr int TILE = Isa::TILE;
    static_assert(INT64_C(8400000) * Values::MOST_VALUE <= INT32_MAX, "MOST_SHARES would overflow");

    static int64_t scratch(int64_t keys, int64_t dim) { return Head(nullptr, keys, dim).floats; }

    static void attend(const Attention& job, float* memory) {
        const Head head(memory, job.keys, job.dim);
        const int64_t finite = Values::pack_values(job, Scores::pack_keys(job, head), head);
        const float scale = 1.44269504f / __builtin_sqrtf(static_cast<float>(job.dim));
        for (int64_t q = 0; q < job.queries; q += TILE) {
            const int64_t rows = at_most(job.queries - q, TILE), most = at_most(job.visible + q + rows - 1, job.keys);
            float factor[TILE], weight[TILE];
            for (int64_t r = 0; r < rows; r++)
                factor[r] = scale * Scores::template quantize<Act, Isa::OFFSET>(job.q + (q + r) * job.ldq, job.dim,
                                                               head.queries + r * head.along);
            Scores::score(head, rows, at_most(most, finite), job.dim);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t seen = at_most(job.visible + q + r, job.keys);
                float* row = head.scores + r * head.across;
                weight[r] = seen > finite ? __builtin_nanf("") : Shares<Isa>::shares(row, seen, factor[r]);
                const int64_t done = weight[r] == weight[r] ? round_up(seen, Head::PAIRED) / 2 : 0;
                memset(row + done, 0, sizeof(float) * static_cast<size_t>(at_least(Values::pairs_of(most) - done, 0)));
            }
            Values::mix(head, rows, most, job.dim);
            for (int64_t r = 0; r < rows; r++)
                Values::write(head, head.mixed + r * head.along, weight[r], job.dim, job.out + (q + r) * job.ldo);
        }
    }
};

}  // namespace
