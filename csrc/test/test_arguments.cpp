// What the C ABI answers to arguments that cannot be: the status that clipq.h documents, and nothing is written.
#include <cstring>

#include "stacks.h"

namespace {

constexpr int64_t TOO_LONG = CLIPQ_MAX_K + 1;

void check_steps(Report& report, int path) {
    const float x[4] = {1, 2, 3, 4};
    const int64_t offsets[] = {0, 1, 2}, shuffled[] = {0, 2, 1}, late[] = {1, 2, 3}, ids[] = {0, 1}, far[] = {0, 2};
    const int8_t table[4] = {};
    float y[4] = {UNTOUCHED, UNTOUCHED, UNTOUCHED, UNTOUCHED}, scale[2] = {1, 1};
    int8_t q[4];
    int32_t zero_point[2];
    Random random(0);
    const Matrix matrix(random, 2, 2);
    const Packed packed = matrix.packed(path);
    const auto linear = [&](int64_t ldx, int64_t m, int64_t ldy, int64_t n, int64_t k, int activation) {
        return clipq_linear_step(path, 1, x, ldx, m, packed.data(), matrix.scale.data(), nullptr, y, ldy, n, k, 0, 0,
                                 0, activation, 0, nullptr);
    };
    const auto normalize = [&](int64_t ldx, int64_t m, int64_t k, float eps) {
        return clipq_normalize_rows(path, 1, x, ldx, m, k, scale, scale, eps, 0, 0, 0, q, scale, zero_point);
    };
    const auto attend = [&](const int64_t* where, int64_t batch, int64_t heads, int64_t dim, int kind = 0) {
        return clipq_attention(path, 1, kind, x, where, batch, heads, dim, 0, y);
    };
    const auto gather = [&](int64_t rows, int64_t k, const int64_t* which, int64_t count) {
        return clipq_gather_rows(path, 1, table, scale, rows, k, which, count, y);
    };
    const int answers[] = {
        linear(2, -1, 2, 2, 2, 0), linear(2, 2, 2, 0, 2, 0), linear(2, 2, 2, 2, 0, 0), linear(1, 2, 2, 2, 2, 0),
        linear(2, 2, 1, 2, 2, 0), linear(2, 2, 2, 2, TOO_LONG, 0), linear(2, 2, 2, 2, 2, -1),
        linear(2, 2, 2, 2, 2, CLIPQ_ACTIVATIONS), normalize(2, -1, 2, 0), normalize(2, 2, 0, 0),
        normalize(1, 2, 2, 0), normalize(2, 2, TOO_LONG, 0), normalize(2, 2, 2, -1), normalize(2, 2, 2, NAN),
        attend(shuffled, 2, 1, 1), attend(late, 2, 1, 1), attend(offsets, -1, 1, 1), attend(offsets, 2, 0, 1),
        attend(offsets, 2, 1, 0), attend(offsets, 2, 1, 1, -1), attend(offsets, 2, 1, 1, CLIPQ_ATTENTIONS), gather(2, 0, ids, 2), gather(2, TOO_LONG, ids, 2), gather(2, 2, ids, -1),
        gather(2, 2, far, 2), clipq_pack(path, table, 0, 2, packed.data()),
        clipq_pack(path, table, 1, TOO_LONG, packed.data()),
        clipq_quantize_rows(path, 1, x, 2, -1, 2, 0, 0, 0, q, scale, zero_point)};
    for (const int answer : answers) report.check(answer == CLIPQ_BAD_SIZE, "a bad size", path);
    const Grid bad[] = {{false, -1}, {false, NAN}, {false, INFINITY}, {false, 1, 128}, {false, 1, -129}, {true, 1, 3}};
    for (const Grid& grid : bad) {
        const int of_linear = clipq_linear(path, 1, x, 2, 2, packed.data(), matrix.scale.data(), nullptr, y, 2, 2, 2,
                                           grid.symmetric, grid.scale, grid.zero_point);
        const int of_rows = clipq_quantize_rows(path, 1, x, 2, 2, 2, grid.symmetric, grid.scale, grid.zero_point, q,
                                                scale, zero_point);
        const int of_norm = clipq_normalize_rows(path, 1, x, 2, 2, 2, scale, scale, 0, grid.symmetric, grid.scale,
                                                 grid.zero_point, q, scale, zero_point);
        report.check(of_linear == CLIPQ_BAD_SIZE && of_rows == CLIPQ_BAD_SIZE && of_norm == CLIPQ_BAD_SIZE, "a bad range",
                     path);
    }
    report.check(clipq_packed_size(path, 1, TOO_LONG) == 0 && clipq_packed_size(path, 0, 1) == 0, "packed_size", path);
    const int empty[] = {linear(2, 0, 2, 2, 2, 0), normalize(2, 0, 2, 0), attend(offsets, 0, 1, 1),
                         gather(2, 2, ids, 0)};
    for (const int answer : empty) report.check(answer == CLIPQ_OK, "no rows", path);
    for (const float v : y) report.check(v == UNTOUCHED, "an untouched result", path);
}

void check_blocks(Report& report, int path) {
    Random random(1);
    const Stack stack(random, 2, 4, 2, 4);
    const Packed packed = stack.blocks[0].packed(path), garbage(packed.size());
    const Packed other = Block(random, 12, 2).packed(path), foreign = stack.blocks[0].packed(path);
    std::memset(garbage.data(), 0x5A, garbage.size());
    const int32_t no_path = CLIPQ_PATHS;
    std::memcpy(foreign.data() + 4, &no_path, sizeof no_path);
    const uint8_t *good[] = {packed.data(), packed.data()}, *bad[] = {packed.data(), garbage.data()};
    const uint8_t *mixed[] = {packed.data(), other.data()}, *paths[] = {packed.data(), foreign.data()};
    const uint8_t* alone[] = {foreign.data()};
    Values y(stack.x.size(), UNTOUCHED);
    const clipq_rotary tables = stack.rotary();
    const auto run = [&](const uint8_t* const* blocks, int64_t count, const std::vector<int64_t>& offsets,
                         const std::vector<int64_t>& keep, int64_t kept) {
        return clipq_run_blocks(1, blocks, count, stack.x.data(), offsets.data(),
                                static_cast<int64_t>(offsets.size()) - 1, 0, keep.data(), kept, &tables, y.data());
    };
    const int64_t rows = stack.rows();
    report.check(run(bad, 2, stack.offsets, {}, 0) == CLIPQ_BAD_BLOCK, "garbage", path);
    report.check(run(mixed, 2, stack.offsets, {}, 0) == CLIPQ_BAD_BLOCK, "another width", path);
    report.check(run(paths, 2, stack.offsets, {}, 0) == CLIPQ_BAD_BLOCK, "another path", path);
    report.check(run(alone, 1, stack.offsets, {}, 0) == CLIPQ_UNSUPPORTED_PATH, "a path there is not", path);
    const int answers[] = {run(good, 0, stack.offsets, {}, 0), run(good, 2, {0, 2, 1}, {}, 0),
                           run(good, 2, {0, 1, 1}, {}, 0), run(good, 2, {1, 2}, {}, 0),
                           run(good, 2, stack.offsets, {1, 0}, 2), run(good, 2, stack.offsets, {0, 0}, 2),
                           run(good, 2, stack.offsets, {-1}, 1), run(good, 2, stack.offsets, {rows}, 1),
                           run(good, 2, stack.offsets, {0}, -1)};
    for (const int answer : answers) report.check(answer == CLIPQ_BAD_SIZE, "a bad size of a stack", path);
    for (const float v : y) report.check(v == UNTOUCHED, "an untouched stack", path);
    report.check(run(good, 2, {0}, {}, 0) == CLIPQ_OK, "no sequence", path);
    report.check(clipq_block_width(packed.data(), packed.size()) == stack.width, "block_width", path);
    for (const size_t size : {size_t(0), size_t(8), packed.size() - 1, packed.size()})
        report.check(clipq_block_width(size < packed.size() ? packed.data() : garbage.data(), size) == 0, "no block",
                     path);
    report.check(clipq_block_width(foreign.data(), foreign.size()) == 0, "a foreign block", path);
}

void check_rotation(Report& report, int path) {
    Random random(4);
    Stack stack(random, 2, 4, 2, 4);
    stack.blocks[0].rotation = CLIPQ_ROTATE_HALVES;
    const Packed packed = stack.blocks[0].packed(path);
    const uint8_t* const blocks[] = {packed.data()};
    const int64_t longest = Sequences{stack.offsets.data(), stack.batch()}.longest();
    const Values table = random.values(longest * 4, -1, 1);
    Values y(stack.x.size(), UNTOUCHED);
    const auto run = [&](const clipq_rotary* rotary, int mask) {
        return clipq_run_blocks(1, blocks, 1, stack.x.data(), stack.offsets.data(), stack.batch(), mask, nullptr, 0,
                                rotary, y.data());
    };
    const clipq_rotary good = {table.data(), table.data(), longest, 4, 0};
    std::vector<clipq_rotary> bad(7, good);
    bad[0].cos = nullptr;
    bad[1].sin = nullptr;
    bad[2].tokens = longest - 1;
    bad[3].tokens = -1, bad[3].prefix = longest;
    bad[4].dim = 2;
    bad[5].prefix = -1;
    bad[6].dim = 8;
    for (const clipq_rotary& one : bad) report.check(run(&one, 0) == CLIPQ_BAD_SIZE, "bad tables", path);
    report.check(run(&good, -1) == CLIPQ_BAD_SIZE && run(&good, CLIPQ_MASKS) == CLIPQ_BAD_SIZE, "no such mask", path);
    for (const float v : y) report.check(v == UNTOUCHED, "an untouched rotation", path);
    for (const int64_t prefix : {int64_t(0), longest, INT64_MAX}) {
        const clipq_rotary one = {table.data(), table.data(), longest, 4, prefix};
        report.check(run(&one, 0) == CLIPQ_OK, "a rotation", path);
    }
    const Values none_turned = y;  // by the last of those, whose prefix is all
    report.check(run(nullptr, 0) == CLIPQ_OK && same(y, none_turned), "no tables", path);
}

void check_ends(Report& report, int path) {
    const Values x(64, 1.0f);
    const std::vector<int64_t> offsets = {0, 1, 2}, shuffled = {0, 2, 1}, late = {1, 2, 3};
    Values y(64, UNTOUCHED);
    const auto cut = [&](int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t down, int64_t across) {
        return clipq_cut_patches(1, x.data(), batch, channels, height, width, down, across, y.data());
    };
    const auto join = [&](int64_t batch, int64_t patches, int64_t width, int64_t prefixes) {
        return clipq_join_tokens(1, x.data(), batch, patches, width, x.data(), prefixes, nullptr, x.data(), x.data(), 0, y.data());
    };
    const auto norm = [&](int64_t ldx, int64_t m, int64_t k, float eps) {
        return clipq_layer_norm(1, x.data(), ldx, m, k, x.data(), x.data(), eps, y.data());
    };
    const auto linear = [&](int64_t m, int64_t k, int64_t n) {
        return clipq_float_linear(path, 1, x.data(), m, k, x.data(), nullptr, n, y.data());
    };
    const auto pool = [&](const std::vector<int64_t>& where, int64_t batch, int64_t heads, int64_t dim) {
        return clipq_pool_attention(path, 1, x.data(), x.data(), where.data(), batch, heads, dim, y.data());
    };
    constexpr int64_t HUGE_SIZE = INT64_MAX, LARGE = INT64_C(1) << 40;
    const int answers[] = {
        cut(-1, 1, 4, 4, 2, 2), cut(1, 0, 4, 4, 2, 2), cut(1, 1, 4, 4, 0, 2), cut(1, 1, 4, 4, 2, -1), cut(1, 1, 4, 4, 5, 2),
        cut(1, 1, 4, 4, 2, 5), cut(1, 1, -4, 4, 2, 2), cut(HUGE_SIZE, 1, 4, 4, 2, 2), cut(1, LARGE, LARGE, 4, 2, 2),
        cut(1, 1, LARGE, LARGE, LARGE, LARGE), cut(1, LARGE, LARGE, LARGE, 1, 1), join(-1, 1, 2, 1), join(1, 0, 2, 1),
        join(1, 1, 0, 1), join(1, 1, 2, -1), join(1, HUGE_SIZE, 2, 1), join(1, 1, 2, HUGE_SIZE), join(LARGE, LARGE, LARGE, LARGE),
        norm(2, -1, 2, 0), norm(2, 2, 0, 0), norm(1, 2, 2, 0), norm(2, 2, 2, -1), norm(2, 2, 2, NAN), norm(HUGE_SIZE, 2, 2, 0),
        norm(LARGE, LARGE, 2, 0), norm(LARGE, LARGE, LARGE, 0), linear(-1, 2, 16), linear(1, 0, 16), linear(1, 2, 0),
        linear(1, 2, 15), linear(1, 2, -16), linear(LARGE, LARGE, LARGE), linear(HUGE_SIZE, 1, 16), pool(shuffled, 2, 1, 1),
        pool(late, 2, 1, 1), pool(offsets, -1, 1, 1), pool(offsets, 2, 0, 1), pool(offsets, 2, 1, 0),
        pool(offsets, 2, LARGE, LARGE), pool({0, HUGE_SIZE}, 1, 2, 2)};
    for (const int answer : answers) report.check(answer == CLIPQ_BAD_SIZE, "a bad size before or after the blocks", path);
    const int empty[] = {cut(0, 1, 4, 4, 2, 2), join(0, 1, 2, 1), norm(2, 0, 2, 0), linear(0, 2, 16), pool({0}, 0, 1, 1)};
    for (const int answer : empty) report.check(answer == CLIPQ_OK, "nothing before or after the blocks", path);
    for (const float v : y) report.check(v == UNTOUCHED, "an untouched row", path);
}

// Of pictures 4 x 4.
void check_resizing(Report& report, int path) {
    const std::vector<uint8_t> pixels(4 * 4 * 3, 9);
    const Values table(3 * 256, 1.0f);
    const std::vector<int32_t> first = {0, 1}, number = {2, 3}, weight(6, 1), before = {0, -1}, none = {2, 0}, many = {2, 4};
    const std::vector<int32_t> late = {0, 2}, last = {0, INT32_MAX}, heavy = {1, 1, 0, 1 << 22, -(1 << 22), 1 << 22};
    const clipq_taps good = {2, 3, first.data(), number.data(), weight.data()};
    Values out(3 * 2 * 2, UNTOUCHED);
    const auto run = [&](int64_t height, int64_t width, const clipq_taps& across, const clipq_taps& down) {
        return clipq_preprocess(path, pixels.data(), height, width, &across, &down, table.data(), out.data());
    };
    std::vector<clipq_taps> bad(9, good);
    bad[0].count = 0;
    bad[1].count = -1;
    bad[2].count = CLIPQ_MAX_SIDE + 1;
    bad[3].most = 0;
    bad[4].most = CLIPQ_MAX_SIDE + 1;
    bad[5].first = before.data();
    bad[6].first = late.data();
    bad[7].number = none.data();
    bad[8].number = many.data();
    bad.push_back(good);
    bad.back().first = last.data();
    bad.push_back(good);
    bad.back().weight = heavy.data();
    for (const clipq_taps& one : bad)
        report.check(run(4, 4, one, good) == CLIPQ_BAD_SIZE && run(4, 4, good, one) == CLIPQ_BAD_SIZE, "bad taps", path);
    for (const int64_t side : {INT64_C(0), INT64_C(-1), INT64_C(3), CLIPQ_MAX_SIDE + 1, INT64_MAX})
        report.check(run(side, 4, good, good) == CLIPQ_BAD_SIZE && run(4, side, good, good) == CLIPQ_BAD_SIZE, "a bad side",
                     path);
    for (const float v : out) report.check(v == UNTOUCHED, "an untouched picture", path);
    report.check(run(4, 4, good, good) == CLIPQ_OK, "good taps", path);
}

void check_descriptions(Report& report, int path) {
    Random random(2);
    const Block block(random, 8, 2);
    clipq_block odd = Block(random, 6, 2).view();
    odd.rotation = CLIPQ_ROTATE_PAIRS;
    std::vector<clipq_block> all(18, block.view());
    all[0].width = 0;
    all[1].hidden = 0;
    all[2].heads = 3;
    all[3].heads = 0;
    all[4].hidden = TOO_LONG;
    all[5].activation = CLIPQ_ACTIVATIONS;
    all[6].ln_1.eps = -1;
    all[7].ln_2.weight = nullptr;
    all[8].qkv.input_scale = -1;
    all[9].out_proj.input_scale = NAN;
    all[10].fc2.input_scale = 1, all[10].fc2.input_zero_point = 128;
    all[11] = odd;
    all[12].rotation = CLIPQ_ROTATIONS;
    all[13].rotation = -1;
    all[14].ln_1.kind = CLIPQ_NORMS;
    all[15].q_norm = {all[15].ln_1.weight, nullptr, NAN, CLIPQ_LAYER_NORM};
    all[16].attn_norm = {all[16].ln_1.weight, nullptr, 0, -1};
    all[17].ln_1.weight = nullptr;
    for (const clipq_block& one : all) {
        report.check(clipq_block_size(path, &one) == 0, "the size of what cannot be packed", path);
        report.check(clipq_pack_block(path, &one, nullptr) == CLIPQ_BAD_SIZE, "what cannot be packed", path);
    }
}

void check_no_path(Report& report, int path) {
    Random random(3);
    const clipq_block block = Block(random, 8, 2).view();
    const int answers[] = {
        clipq_pack(path, nullptr, 1, 1, nullptr),
        clipq_linear(path, 1, nullptr, 1, 1, nullptr, nullptr, nullptr, nullptr, 1, 1, 1, 0, 0, 0),
        clipq_quantize_rows(path, 1, nullptr, 1, 1, 1, 0, 0, 0, nullptr, nullptr, nullptr),
        clipq_normalize_rows(path, 1, nullptr, 1, 1, 1, nullptr, nullptr, 0, 0, 0, 0, nullptr, nullptr, nullptr),
        clipq_attention(path, 1, 0, nullptr, nullptr, 1, 1, 1, 0, nullptr),
        clipq_gather_rows(path, 1, nullptr, nullptr, 1, 1, nullptr, 1, nullptr),
        clipq_float_linear(path, 1, nullptr, 1, 1, nullptr, nullptr, 16, nullptr),
        clipq_pool_attention(path, 1, nullptr, nullptr, nullptr, 1, 1, 1, nullptr),
        clipq_pack_block(path, &block, nullptr)};
    for (const int answer : answers) report.check(answer == CLIPQ_UNSUPPORTED_PATH, "no such path", path);
    report.check(clipq_block_size(path, &block) == 0, "a block's size without a path", path);
}

}  // namespace

int main() {
    Report report;
    for (const int path : supported_paths()) {
        check_steps(report, path);
        check_blocks(report, path);
        check_rotation(report, path);
        check_ends(report, path);
        check_resizing(report, path);
        check_descriptions(report, path);
    }
    for (int path = -1; path <= CLIPQ_PATHS; path++)
        if (!clipq_supports(path)) check_no_path(report, path);
    std::printf("arguments: %zu paths\n", supported_paths().size());
    return report.status();
}
