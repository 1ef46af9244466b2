#include "stack.h"

namespace clipq {

namespace {

constexpr int64_t SHARED_ROWS = 800;  // what lies between the steps of so many rows stays in a shared cache
constexpr int64_t ALONE_ROWS = 200;   // 4 images of ViT-B/32: as fast a row as any number, and easy to deal out evenly
constexpr int64_t ALONE_LEAST = 96;   // fewer rows wait for the weights, which each thread reads by itself

// Takes sequences from the front of a call.
class Dealer {
  public:
    explicit Dealer(const Call& call) : call_(call) {}

    int64_t sequences() const { return call_.sequences.count - sequence_; }
    int64_t rows() const { return offsets()[call_.sequences.count] - offsets()[sequence_]; }

    // As many sequences as have at most `most` rows, but at least one.
    Group take(int64_t most) {
        const int64_t width = call_.block(0).width, begin = offsets()[sequence_];
        int64_t end = sequence_ + 1, last = keeping_;
        while (end < call_.sequences.count && offsets()[end + 1] - begin <= most) end++;
        while (last < call_.kept && call_.keep[last] < offsets()[end]) last++;
        const Group group = {{offsets() + sequence_, end - sequence_},
                             call_.keep ? call_.keep + keeping_ : nullptr,
                             last - keeping_,
                             call_.y + (call_.keep ? keeping_ : begin) * width};
        sequence_ = end;
        keeping_ = last;
        return group;
    }

  private:
    const int64_t* offsets() const { return call_.sequences.offsets; }

    const Call& call_;
    int64_t sequence_ = 0, keeping_ = 0;
};

}  // namespace

int64_t Call::products() const {
    const int64_t longest = sequences.longest();
    int64_t weights = 0;
    for (int64_t i = 0; i < count; i++)
        weights += block(i).width * (4 * block(i).width + block(i).fc1.n + block(i).hidden + 2 * longest);
    return sequences.rows() * weights;
}

// Threads that work alone never wait for each other, so rounds of one group for each thread are dealt out as long as
// there is enough for all of them; the rest is shared.
Plan plan(const Call& call, int threads) {
    Plan found;
    Dealer dealer(call);
    const int64_t least = at_least(call.sequences.longest(), ALONE_LEAST);
    while (dealer.sequences() > 0) {
        const int64_t share = dealer.rows() / threads;
        if (threads > 1 && share >= least && dealer.sequences() >= threads)
            for (int i = 0; i < threads && dealer.sequences() > 0; i++)
                found.alone.push_back(dealer.take(at_most(share, ALONE_ROWS)));
        else
            found.shared.push_back(dealer.take(threads > 1 ? SHARED_ROWS : ALONE_ROWS));
    }
    return found;
}

Extent extent_of(const Call& call, const std::vector<Group>& groups) {
    Extent most;
    for (int64_t i = 0; i < call.count; i++) {
        most.width = call.block(i).width;
        most.hidden = at_least(call.block(i).hidden, most.hidden);
        most.inner = at_least(call.block(i).fc1.n, most.inner);
        most.dim = at_least(call.block(i).width / call.block(i).heads, most.dim);
    }
    for (const Group& group : groups) {
        most.rows = at_least(group.sequences.rows(), most.rows);
        most.kept = at_least(group.kept, most.kept);
        most.longest = at_least(group.sequences.longest(), most.longest);
        most.sequences = at_least(group.sequences.count, most.sequences);
    }
    return most;
}

}  // namespace clipq
