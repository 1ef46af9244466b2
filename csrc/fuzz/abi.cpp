// libFuzzer's arguments for the C ABI: sizes, strides, ids and offsets that may be anything, in buffers of the size that the
// sizes say where they are sensible. Whatever is refused must be refused before memory is touched; the sanitizers watch.
// scripts/building/fuzz_native.py --coverage builds and runs it.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "../clipq.h"

namespace {

constexpr int64_t HUGE_SIZES[] = {INT64_MAX, INT64_MIN, CLIPQ_MAX_K + 1, int64_t{1} << 40};

struct Arguments {
    FuzzedDataProvider data;

    // A small size as a rule, at times zero, negative or huge.
    int64_t size(int64_t most) {
        if (data.ConsumeIntegralInRange(0, 15) == 0) return HUGE_SIZES[data.ConsumeIntegralInRange(0, 3)];
        return data.ConsumeIntegralInRange<int64_t>(-1, most);
    }
    int path() { return data.ConsumeIntegralInRange<int>(-1, CLIPQ_PATHS); }
    int threads() { return data.ConsumeIntegralInRange(-1, 3); }
    std::vector<float> floats(int64_t count) {
        std::vector<float> values(static_cast<size_t>(count));
        for (float& value : values) value = static_cast<float>(data.ConsumeIntegral<int8_t>()) / 16;
        if (!values.empty() && data.ConsumeBool()) values[0] = data.ConsumeFloatingPoint<float>();
        return values;
    }
    // No range, a sensible one, or any float.
    float range() {
        if (a_coin()) return 0;
        return a_coin() ? 0.1f : data.ConsumeFloatingPoint<float>();
    }
    bool a_coin() { return data.ConsumeBool(); }
    std::vector<int8_t> bytes(int64_t count) {
        std::vector<int8_t> values(static_cast<size_t>(count));
        for (int8_t& value : values) value = data.ConsumeIntegral<int8_t>();
        return values;
    }
    std::vector<int64_t> numbers(int64_t count, int64_t most) {
        std::vector<int64_t> values(static_cast<size_t>(count));
        for (int64_t& value : values) value = size(most);
        return values;
    }
};

bool sensible(int64_t value, int64_t most) { return value >= 1 && value <= most; }

void linear(Arguments& a) {
    const int path = a.path();
    const int64_t m = a.size(9), n = a.size(70), k = a.size(70), ldx = a.size(75), ldy = a.size(75);
    const size_t packed_size = clipq_packed_size(path, n, k);
    const bool usual = sensible(n, 70) && sensible(k, 70) && m <= 9;
    if (!usual || packed_size == 0) {  // nothing may be read or written
        if (!usual && (m > 9 || packed_size)) return;  // sizes of real memory: the caller's to provide
        clipq_linear(path, a.threads(), nullptr, ldx, m, nullptr, nullptr, nullptr, nullptr, ldy, n, k, 0, 0, 0);
        return;
    }
    std::vector<uint8_t> packed(packed_size);
    if (clipq_pack(path, a.bytes(n * k).data(), n, k, packed.data()) != CLIPQ_OK) return;
    const int64_t rows = std::max<int64_t>(m, 0);
    const auto x = a.floats(rows ? (rows - 1) * std::clamp<int64_t>(ldx, 0, 75) + k : 0);
    std::vector<float> y(static_cast<size_t>(rows ? (rows - 1) * std::clamp<int64_t>(ldy, 0, 75) + n : 0));
    if (ldx > 75 || ldy > 75) return;
    clipq_linear(path, a.threads(), x.data(), ldx, m, packed.data(), a.floats(n).data(), a.floats(n).data(), y.data(), ldy,
                 n, k, a.data.ConsumeBool(), a.range(), a.data.ConsumeIntegralInRange(-129, 128));
}

void gather(Arguments& a) {
    const int64_t rows = a.data.ConsumeIntegralInRange<int64_t>(1, 9), k = a.data.ConsumeIntegralInRange<int64_t>(1, 40);
    const auto table = a.bytes(rows * k);
    const auto ids = a.numbers(a.data.ConsumeIntegralInRange<int64_t>(0, 9), rows + 1);
    std::vector<float> y(ids.size() * static_cast<size_t>(k));
    clipq_gather_rows(a.path(), a.threads(), table.data(), a.floats(rows).data(), rows, k, ids.data(),
                      static_cast<int64_t>(ids.size()), y.data());
}

void block_bytes(Arguments& a) {
    const auto bytes = a.data.ConsumeRemainingBytes<uint8_t>();
    clipq_block_width(bytes.data(), bytes.size());
}

// With the range that `before` has.
clipq_matrix matrix(const std::vector<int8_t>& weight, const std::vector<float>& values, int64_t n, const clipq_matrix& before) {
    return {weight.data(), values.data(), values.data() + n, before.input_scale, before.input_zero_point};
}

void blocks(Arguments& a) {
    const int path = a.path();
    clipq_block block{};
    block.heads = a.size(4), block.width = a.size(32), block.hidden = a.size(40);
    block.activation = a.data.ConsumeIntegralInRange<int>(-1, CLIPQ_ACTIVATIONS), block.symmetric = a.data.ConsumeBool();
    block.attention = a.data.ConsumeIntegralInRange<int>(-1, CLIPQ_ATTENTIONS);
    block.gated = a.a_coin(), block.rotation = a.data.ConsumeIntegralInRange<int>(-1, CLIPQ_ROTATIONS);
    const float there = 1;  // until its size is known
    block.ln_1 = block.ln_2 = {&there, nullptr, 1e-5f, a.data.ConsumeIntegralInRange<int>(-1, CLIPQ_NORMS)};
    for (clipq_norm* norm : {&block.q_norm, &block.k_norm, &block.attn_norm, &block.mlp_norm})
        if (a.a_coin()) *norm = block.ln_1;
    block.qkv.input_scale = a.range(), block.fc2.input_scale = a.range();
    block.fc2.input_zero_point = a.data.ConsumeIntegralInRange(-129, 128);
    if (clipq_block_size(path, &block) == 0 || !sensible(block.width, 32) || !sensible(block.hidden, 40)) return;
    const int64_t w = block.width, h = block.hidden;
    const auto qkv = a.bytes(3 * w * w), out = a.bytes(w * w), up = a.bytes(2 * h * w), down = a.bytes(w * h);
    const auto values = a.floats(2 * (3 * w + 2 * h));
    for (clipq_norm* norm : {&block.ln_1, &block.ln_2, &block.q_norm, &block.k_norm, &block.attn_norm, &block.mlp_norm})
        if (norm->weight) norm->weight = values.data(), norm->bias = a.a_coin() ? values.data() : nullptr;
    block.qkv = matrix(qkv, values, 3 * w, block.qkv), block.out_proj = matrix(out, values, w, block.out_proj);
    block.fc1 = matrix(up, values, block.gated ? 2 * h : h, block.fc1), block.fc2 = matrix(down, values, w, block.fc2);
    std::vector<uint8_t> packed(clipq_block_size(path, &block));  // with all that it may have
    if (packed.empty() || clipq_pack_block(path, &block, packed.data()) != CLIPQ_OK) return;

    auto offsets = a.numbers(a.data.ConsumeIntegralInRange<int64_t>(1, 5), 12);
    if (a.data.ConsumeBool()) std::sort(offsets.begin(), offsets.end()), offsets[0] = 0;
    const int64_t rows = std::clamp<int64_t>(*std::max_element(offsets.begin(), offsets.end()), 0, 12);
    for (int64_t& offset : offsets) offset = std::min<int64_t>(offset, 12);
    const auto keep = a.numbers(a.data.ConsumeIntegralInRange<int64_t>(0, 4), rows);
    const bool keeps = a.data.ConsumeBool() && !keep.empty();  // no address would say that all are kept
    const auto x = a.floats(rows * w);
    std::vector<float> y(static_cast<size_t>((keeps ? static_cast<int64_t>(keep.size()) : rows) * w));
    const uint8_t* const stack[] = {packed.data(), packed.data()};
    const int64_t dim = w / block.heads;
    clipq_rotary rotary = {nullptr, nullptr, a.data.ConsumeIntegralInRange<int64_t>(-1, 12), a.a_coin() ? dim : a.size(8), a.size(5)};
    const auto table = a.floats(std::clamp<int64_t>(rotary.tokens, 0, 12) * dim);
    if (a.a_coin()) rotary.cos = rotary.sin = table.data();
    clipq_run_blocks(a.threads(), stack, a.data.ConsumeIntegralInRange<int64_t>(-1, 2), x.data(), offsets.data(),
                     static_cast<int64_t>(offsets.size()) - 1, a.data.ConsumeIntegralInRange<int>(-1, CLIPQ_MASKS),
                     keeps ? keep.data() : nullptr, static_cast<int64_t>(keep.size()), a.a_coin() ? &rotary : nullptr, y.data());
}

// Whether one of the sizes is large and there may be such a thing: then its memory is the caller's to provide.
bool real(std::initializer_list<int64_t> sizes) {
    return std::any_of(sizes.begin(), sizes.end(), [](int64_t size) { return size > 80 && size <= CLIPQ_MAX_N; });
}

// How many floats these sizes are, and none where one of them cannot be: then nothing may be read or written.
int64_t floats_of(std::initializer_list<int64_t> sizes) {
    int64_t all = 1;
    for (const int64_t size : sizes) all *= sensible(size, 80) ? size : 0;
    return all;
}

void patches(Arguments& a) {
    const int64_t batch = a.size(3), channels = a.size(4), height = a.size(12), width = a.size(12);
    const int64_t down = a.size(5), across = a.size(5), count = a.size(9), prefixes = a.size(3), k = a.size(20);
    if (real({batch, channels, height, width, count, prefixes, k})) return;
    const auto pixels = a.floats(floats_of({batch, channels, height, width}));
    std::vector<float> rows(pixels.size());  // what is cut is no more than there is
    clipq_cut_patches(a.threads(), pixels.data(), batch, channels, height, width, down, across, rows.data());

    const auto given = a.floats(floats_of({batch, count, k})), prefix = a.floats(floats_of({prefixes, k}));
    const auto places = a.floats(floats_of({count, k})), weight = a.floats(floats_of({k}));
    std::vector<float> y(given.size() + prefix.size() * static_cast<size_t>(std::clamp<int64_t>(batch, 0, 3)));
    clipq_join_tokens(a.threads(), given.data(), batch, count, k, prefix.data(), prefixes, a.a_coin() ? places.data() : nullptr,
                      weight.data(), weight.data(), a.a_coin() ? -1 : a.range(), y.data());
}

void floats(Arguments& a) {
    const int64_t m = a.size(9), k = a.size(40), n = a.a_coin() ? 16 * a.data.ConsumeIntegralInRange<int64_t>(0, 3) : a.size(70);
    const int64_t ldx = a.size(45);
    if (real({m, k, n, ldx})) return;
    const auto x = a.floats(floats_of({m, k})), weight = a.floats(floats_of({k, n})), bias = a.floats(floats_of({n}));
    std::vector<float> y(static_cast<size_t>(floats_of({m, n})));
    clipq_float_linear(a.path(), a.threads(), x.data(), m, k, weight.data(), a.a_coin() ? bias.data() : nullptr, n, y.data());

    const auto wide = a.floats(floats_of({m, ldx})), scale = a.floats(floats_of({k}));
    std::vector<float> normed(static_cast<size_t>(floats_of({m, k})));
    if (m == 1 && (ldx < k || ldx > 80)) return;  // one row has no stride
    clipq_layer_norm(a.threads(), wide.data(), ldx, m, k, scale.data(), scale.data(), a.range(), normed.data());
}

void pool(Arguments& a) {
    const int64_t heads = a.size(3), dim = a.size(20), width = floats_of({heads, dim});
    if (real({heads, dim})) return;
    auto offsets = a.numbers(a.data.ConsumeIntegralInRange<int64_t>(1, 5), 12);
    if (a.a_coin()) std::sort(offsets.begin(), offsets.end()), offsets[0] = 0;
    for (int64_t& offset : offsets) offset = std::min<int64_t>(offset, 12);
    const auto q = a.floats(width), kv = a.floats(12 * 2 * width);
    std::vector<float> y((offsets.size() - 1) * static_cast<size_t>(width));
    clipq_pool_attention(a.path(), a.threads(), q.data(), kv.data(), offsets.data(), static_cast<int64_t>(offsets.size()) - 1,
                         heads, dim, y.data());
}

struct Pass {
    std::vector<int32_t> first, number, weight;
    clipq_taps taps;

    Pass(Arguments& a, int64_t size) {
        const int64_t count = a.data.ConsumeIntegralInRange<int64_t>(0, 6), most = a.data.ConsumeIntegralInRange<int64_t>(0, 9);
        for (int64_t i = 0; i < count; i++) {
            first.push_back(static_cast<int32_t>(a.size(std::clamp<int64_t>(size, 0, 80))));
            number.push_back(static_cast<int32_t>(a.size(most)));
            for (int64_t t = 0; t < most; t++) weight.push_back(a.data.ConsumeIntegral<int32_t>() >> (a.a_coin() ? 8 : 12));
        }
        taps = {count, most, first.data(), number.data(), weight.data()};
    }
};

void picture(Arguments& a) {
    const int64_t height = a.size(12), width = a.size(12), pixels = 3 * floats_of({height, width});
    if (real({height, width})) return;
    const Pass across(a, width), down(a, height);
    const auto bytes = a.bytes(pixels);
    const std::vector<float> table(3 * 256, 1.0f);
    std::vector<float> out(static_cast<size_t>(3 * across.taps.count * down.taps.count));
    clipq_preprocess(a.path(), reinterpret_cast<const uint8_t*>(bytes.data()), height, width, &across.taps, &down.taps,
                     table.data(), out.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Arguments a{FuzzedDataProvider(bytes, size)};
    switch (a.data.ConsumeIntegralInRange(0, 7)) {
        case 0: linear(a); break;
        case 1: gather(a); break;
        case 2: blocks(a); break;
        case 3: patches(a); break;
        case 4: floats(a); break;
        case 5: pool(a); break;
        case 6: picture(a); break;
        default: block_bytes(a);
    }
    return 0;
}
