// Pillow's resizing of 8-bit pictures, to the bit, on as wide vectors as the processor has, and the normalization of
// what comes out. Its sums are exact in int32, so that their order is free: one addition per tap and rounding per pass
// (Pillow's src/libImaging/Resample.c: weights of 22 fractional bits, first across, then down, 8 bits in between).
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "clipq.h"
#include "blocks.h"

namespace {

using namespace clipq;

// Of 255 by weights that add up to this, the sum and half of a unit stay within int32.
constexpr int64_t MOST_WEIGHT = (INT32_MAX - (1 << (TAP_BITS - 1))) / 255;

bool fits(const clipq_taps& taps, int64_t size) {
    if (taps.count < 1 || taps.most < 1 || taps.count > CLIPQ_MAX_SIDE || taps.most > CLIPQ_MAX_SIDE) return false;
    for (int64_t i = 0; i < taps.count; i++) {
        const int64_t first = taps.first[i], number = taps.number[i];
        if (first < 0 || number < 1 || number > taps.most || first + number > size) return false;
        int64_t all = 0;
        for (int64_t t = 0; t < number; t++) all += std::abs(int64_t(taps.weight[i * taps.most + t]));
        if (all > MOST_WEIGHT) return false;
    }
    return true;
}

std::vector<int32_t> spread(const clipq_taps& taps, int64_t groups) {
    std::vector<int32_t> weights(static_cast<size_t>(taps.count * groups * TAP_LANES));
    for (int64_t x = 0; x < taps.count; x++)
        for (int64_t t = 0; t < taps.number[x]; t++)
            for (int c = 0; c < 3; c++)
                weights[(x * groups + t / TAPS) * TAP_LANES + t % TAPS * 3 + c] = taps.weight[x * taps.most + t];
    return weights;
}

void resize(const Kernel& kernel, const uint8_t* pixels, int64_t height, int64_t width, const clipq_taps& across,
            const clipq_taps& down, const float* table, float* out) {
    const int64_t stride = 3 * width, groups = round_up(across.most, TAPS) / TAPS;
    const int64_t row = round_up(PIXEL * across.count, TAP_LANES);
    int64_t top = height, end = 0;  // the rows that the second pass looks at
    for (int64_t y = 0; y < down.count; y++) {
        top = std::min<int64_t>(top, down.first[y]);
        end = std::max<int64_t>(end, down.first[y] + down.number[y]);
    }
    const Taps taps = {across.count, groups, across.first, across.number};
    const std::vector<int32_t> weights = spread(across, groups);
    std::vector<uint8_t> between(static_cast<size_t>((end - top + TAP_ROWS) * row)), line(static_cast<size_t>(row));
    std::vector<uint8_t> last(static_cast<size_t>(TAP_ROWS * stride + TAP_LANES));  // for vectors that reach past the end
    for (int64_t y = top; y < end; y += TAP_ROWS) {
        const uint8_t* rows = pixels + y * stride;
        if ((height - y - TAP_ROWS) * stride < TAP_LANES) {  // of narrow pictures more than the last rows
            const int64_t left = std::min<int64_t>(TAP_ROWS, height - y);
            std::memcpy(last.data(), rows, static_cast<size_t>(left * stride));
            rows = last.data();
        }
        kernel.across_rows(rows, stride, taps, weights.data(), between.data() + (y - top) * row, row);
    }
    const int64_t plane = down.count * across.count;
    for (int64_t y = 0; y < down.count; y++) {
        const uint8_t* rows = between.data() + (down.first[y] - top) * row;
        kernel.down_row(rows, row, row, down.weight + y * down.most, down.number[y], line.data());
        for (int c = 0; c < 3; c++) {
            const float* values = table + 256 * c;
            float* to = out + c * plane + y * across.count;
            for (int64_t x = 0; x < across.count; x++) to[x] = values[line[PIXEL * x + c]];
        }
    }
}

}  // namespace

int clipq_preprocess(int path, const uint8_t* pixels, int64_t height, int64_t width, const clipq_taps* across,
                     const clipq_taps* down, const float* table, float* out) {
    if (height < 1 || width < 1 || height > CLIPQ_MAX_SIDE || width > CLIPQ_MAX_SIDE) return CLIPQ_BAD_SIZE;
    if (!fits(*across, width) || !fits(*down, height)) return CLIPQ_BAD_SIZE;
    const Kernel* kernel = usable_kernel(path);
    if (!kernel) return CLIPQ_UNSUPPORTED_PATH;
    try {
        resize(*kernel, pixels, height, width, *across, *down, table, out);
    } catch (const std::bad_alloc&) {
        return CLIPQ_OUT_OF_MEMORY;
    }
    return CLIPQ_OK;
}
