// Times a tower's steps within real calls of it, beside what the processor and its memory can do at most. One line of
// JSON: see scripts/measuring/bench_native.py, which builds and runs it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "../clipq.h"
#include "../parallel.h"
#include "../system.h"
#include "clocks.h"
#include "peak.h"

using namespace clipq;

namespace {

const Peak* peak_of(int path) {
    switch (path) {
        case CLIPQ_PORTABLE: return &peak_portable;
#ifdef CLIPQ_HAVE_AVX2
        case CLIPQ_AVX2: return &peak_avx2;
#endif
#ifdef CLIPQ_HAVE_AVX_VNNI
        case CLIPQ_AVX_VNNI: return &peak_avx_vnni;
#endif
#ifdef CLIPQ_HAVE_AVX512_VNNI
        case CLIPQ_AVX512_VNNI: return &peak_avx512_vnni;
#endif
#ifdef CLIPQ_HAVE_NEON_DOTPROD
        case CLIPQ_NEON_DOTPROD: return &peak_neon_dotprod;
#endif
        default: return nullptr;
    }
}

class Bytes {
  public:
    explicit Bytes(size_t size) : memory_(aligned_memory(size)), size_(size) {
        if (!memory_) std::abort();
#ifdef MADV_HUGEPAGE
        constexpr uintptr_t PAGE = 4096;  // large pages, as numpy asks for
        const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory_.get()) + PAGE - 1) / PAGE * PAGE;
        if (size >= (size_t(4) << 20)) madvise(reinterpret_cast<void*>(begin), size - PAGE, MADV_HUGEPAGE);
#endif
        memset(memory_.get(), 0, size);
    }
    uint8_t* data() const { return static_cast<uint8_t*>(memory_.get()); }
    float* floats() const { return reinterpret_cast<float*>(data()); }
    size_t size() const { return size_; }

  private:
    std::unique_ptr<void, FreeAligned> memory_;
    size_t size_;
};

std::mt19937 engine(0);

std::vector<float> random_floats(int64_t count, float low, float high) {
    std::uniform_real_distribution<float> any(low, high);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = any(engine);
    return values;
}

// Weights [n, k] with scales that keep the size of what they multiply.
struct Matrix {
    std::vector<int8_t> weight;
    std::vector<float> scale, bias;

    Matrix(int64_t n, int64_t k)
        : weight(static_cast<size_t>(n * k)), scale(static_cast<size_t>(n), 0.0137f / std::sqrt(static_cast<float>(k))),
          bias(random_floats(n, -0.1f, 0.1f)) {
        for (int8_t& one : weight) one = static_cast<int8_t>(engine() % 255 - 127);
    }
    clipq_matrix view() const { return {weight.data(), scale.data(), bias.data(), 0, 0}; }
};

struct Shape {
    int64_t width, hidden, heads, layers, patch, size;
    bool pooled;  // only the first row of a picture is read after the blocks

    int64_t patches() const { return (size / patch) * (size / patch); }
    int64_t tokens() const { return patches() + (pooled ? 1 : 0); }
    int64_t inputs() const { return 3 * patch * patch; }
};

Bytes packed_block(int path, const Shape& shape) {
    const int64_t d = shape.width, h = shape.hidden;
    const std::vector<float> ones = random_floats(d, 0.5f, 1.5f), zeros = random_floats(d, -0.2f, 0.2f);
    const Matrix qkv(3 * d, d), out_proj(d, d), fc1(h, d), fc2(d, h);
    clipq_block block = {};
    block.width = d;
    block.hidden = h;
    block.heads = shape.heads;
    block.activation = CLIPQ_GELU;
    block.attention = CLIPQ_INT8_ATTENTION;
    block.ln_1 = block.ln_2 = {ones.data(), zeros.data(), 1e-5f, CLIPQ_LAYER_NORM};
    block.qkv = qkv.view();
    block.out_proj = out_proj.view();
    block.fc1 = fc1.view();
    block.fc2 = fc2.view();
    Bytes packed(clipq_block_size(path, &block));
    if (clipq_pack_block(path, &block, packed.data())) std::abort();
    return packed;
}

enum Part { CUT, PATCHES, JOIN, BLOCKS, END, PARTS };
const char* const PART_NAMES[] = {"cut_patches", "patch_product", "join_tokens", "blocks", "last_norm_and_projection"};
const char* const STEP_NAMES[] = {"normalize", "quantize", "quantize_hidden", "qkv", "out_proj", "fc1", "fc2",
                                  "attention"};

struct Sample {
    double ms;
    double parts[PARTS], steps[STEPS];
};

// An image tower of random weights.
class Tower {
  public:
    Tower(int path, const Shape& shape)
        : path_(path), shape_(shape), prefix_(random_floats(shape.width, -1, 1)),
          positions_(random_floats(shape.patches() * shape.width, -1, 1)),
          ones_(static_cast<size_t>(shape.width), 1.0f), zeros_(static_cast<size_t>(shape.width), 0.0f),
          projection_(random_floats(shape.width * 512, -0.05f, 0.05f)), patch_(shape.width, shape.inputs()),
          packed_patch_(clipq_packed_size(path, shape.width, shape.inputs())) {
        clipq_pack(path, patch_.weight.data(), shape.width, shape.inputs(), packed_patch_.data());
        for (int64_t i = 0; i < shape.layers; i++) blocks_.push_back(packed_block(path, shape));
        for (const Bytes& block : blocks_) addresses_.push_back(block.data());
    }

    int64_t weights() const {
        int64_t bytes = static_cast<int64_t>(packed_patch_.size());
        for (const Bytes& block : blocks_) bytes += static_cast<int64_t>(block.size());
        return bytes;
    }

    // Products of the int8 linears and of attention, for one picture.
    double products() const {
        const double d = static_cast<double>(shape_.width), h = static_cast<double>(shape_.hidden),
                     t = static_cast<double>(shape_.tokens()), all = static_cast<double>(shape_.layers),
                     kept = shape_.pooled ? 1 : t;
        const double whole = t * d * (4 * d + 2 * h) + 2 * t * t * d;
        const double last = t * d * 2 * d + kept * d * (2 * d + 2 * h) + 2 * kept * t * d;
        return whole * (all - 1) + last + static_cast<double>(shape_.patches()) * d * static_cast<double>(shape_.inputs());
    }

    void prepare(int64_t batch) {
        pixels_ = random_floats(batch * 3 * shape_.size * shape_.size, -2, 2);
        const size_t rows = static_cast<size_t>(batch * shape_.tokens() * shape_.width);
        cut_.resize(static_cast<size_t>(batch * shape_.patches() * shape_.inputs()));
        patches_.resize(static_cast<size_t>(batch * shape_.patches() * shape_.width));
        rows_.resize(rows);
        result_.resize(rows);
        embedding_.resize(static_cast<size_t>(batch * shape_.tokens() * 512));
        offsets_.clear();
        keep_.clear();
        for (int64_t i = 0; i <= batch; i++) offsets_.push_back(i * shape_.tokens());
        for (int64_t i = 0; i < batch; i++) keep_.push_back(i * shape_.tokens());
    }

    Sample run(int threads, int64_t batch) {
        const int64_t d = shape_.width, kept = shape_.pooled ? batch : batch * shape_.tokens();
        int64_t marks[PARTS + 1], *mark = marks;
        *mark++ = now();
        clipq_cut_patches(threads, pixels_.data(), batch, 3, shape_.size, shape_.size, shape_.patch, shape_.patch,
                          cut_.data());
        *mark++ = now();
        clipq_linear(path_, threads, cut_.data(), shape_.inputs(), batch * shape_.patches(), packed_patch_.data(),
                     patch_.scale.data(), patch_.bias.data(), patches_.data(), d, d, shape_.inputs(), 0, 0, 0);
        *mark++ = now();
        clipq_join_tokens(threads, patches_.data(), batch, shape_.patches(), d, prefix_.data(), shape_.pooled,
                          positions_.data(), ones_.data(), zeros_.data(), 1e-5f, rows_.data());
        *mark++ = now();
        clocks.reset();
        clocks.width = d;
        clipq_run_blocks(threads, addresses_.data(), shape_.layers, rows_.data(), offsets_.data(), batch, 0,
                         shape_.pooled ? keep_.data() : nullptr, kept, nullptr, result_.data());
        Sample sample;
        for (size_t i = 0; i < STEPS; i++) sample.steps[i] = static_cast<double>(clocks.nanoseconds[i]) * 1e-6;
        *mark++ = now();
        clipq_layer_norm(threads, result_.data(), d, kept, d, ones_.data(), zeros_.data(), 1e-5f, result_.data());
        if (shape_.pooled)
            clipq_float_linear(path_, threads, result_.data(), kept, d, projection_.data(), nullptr, 512,
                               embedding_.data());
        *mark++ = now();
        for (int i = 0; i < PARTS; i++) sample.parts[i] = static_cast<double>(marks[i + 1] - marks[i]) * 1e-6;
        sample.ms = static_cast<double>(marks[PARTS] - marks[0]) * 1e-6;
        return sample;
    }

  private:
    int path_;
    Shape shape_;
    std::vector<float> prefix_, positions_, ones_, zeros_, projection_;
    Matrix patch_;
    Bytes packed_patch_;
    std::vector<Bytes> blocks_;
    std::vector<const uint8_t*> addresses_;
    std::vector<float> pixels_, cut_, patches_, rows_, result_, embedding_;
    std::vector<int64_t> offsets_, keep_;
};

// Billions of operations a second of all threads together.
double dots_a_second(const Peak& peak, int threads) {
    constexpr int64_t ROUNDS = 100000;
    const int64_t start = now();
    with_team(threads, true, [&](Team& team) { team.each(threads, [&](int64_t) { peak.run(ROUNDS); }); });
    return static_cast<double>(peak.operations * ROUNDS * threads) / static_cast<double>(now() - start);
}

constexpr size_t STREAM = size_t(64) << 20;  // bytes: beyond most last-level caches' share of a core

// Gigabytes a second that all threads together read, and that memcpy reads and writes.
double read_rate(const Bytes& memory, int threads) {
    std::atomic<uint64_t> kept{0};
    const int64_t start = now();
    with_team(threads, true, [&](Team& team) {
        team.each(64, [&](int64_t task) {
            const uint64_t* words = reinterpret_cast<const uint64_t*>(memory.data() + memory.size() / 64 * static_cast<size_t>(task));
            uint64_t sums[8] = {};
            for (size_t i = 0; i < memory.size() / 64 / 8; i += 8)
                for (size_t l = 0; l < 8; l++) sums[l] ^= words[i + l];
            for (uint64_t sum : sums) kept ^= sum;
        });
    });
    return static_cast<double>(memory.size()) / static_cast<double>(now() - start);
}

double copy_rate(const Bytes& from, const Bytes& to, int threads) {
    const int64_t start = now();
    with_team(threads, true, [&](Team& team) {
        team.each(16, [&](int64_t task) {
            const size_t part = from.size() / 16;
            memcpy(to.data() + part * static_cast<size_t>(task), from.data() + part * static_cast<size_t>(task), part);
        });
    });
    return 2 * static_cast<double>(from.size()) / static_cast<double>(now() - start);
}

double quartile(std::vector<double> values, double share) {
    std::sort(values.begin(), values.end());
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

template <class Value>
double median_of(const std::vector<Sample>& samples, const Value& value) {
    std::vector<double> all;
    for (const Sample& sample : samples) all.push_back(value(sample));
    return quartile(all, 0.5);
}

template <class Value>
double least_of(const std::vector<Sample>& samples, const Value& value) {
    double least = value(samples[0]);
    for (const Sample& sample : samples) least = std::min(least, value(sample));
    return least;
}

// What GELU costs: nanoseconds a value, as the difference that it makes to a product whose rows are in the cache.
double gelu_cost(int path, const Shape& shape) {
    const Kernel& kernel = *untimed_kernel(path);
    const int64_t m = 10 * kernel.tile_rows, k = 64, n = shape.hidden / kernel.panel_cols * kernel.panel_cols;
    const Matrix matrix(n, k);
    const Bytes packed(kernel.packed_size(n, k)), acts(static_cast<size_t>(kernel.row_stride(k) * m));
    std::vector<float> x = random_floats(m * k, -2, 2), y(static_cast<size_t>(m * n)), scale(static_cast<size_t>(m));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    const Rows rows = {acts.data(), scale.data(), zero_point.data()};
    kernel.pack(matrix.weight.data(), n, k, packed.data());
    kernel.quantize({x.data(), k, k, -1.0f, nullptr, nullptr}, false, rows, 0, m);
    std::vector<double> times[2];
    for (int round = 0; round < 200; round++) {
        const Linear job = {rows, packed.data(), matrix.scale.data(), matrix.bias.data(), y.data(), n, n, k,
                            round % 2 ? CLIPQ_GELU : CLIPQ_NO_ACTIVATION, false, nullptr};
        const int64_t start = now();
        kernel.multiply(job, 0, m, 0, n / kernel.panel_cols);
        times[round % 2].push_back(static_cast<double>(now() - start));
    }
    return (quartile(times[1], 0.25) - quartile(times[0], 0.25)) / static_cast<double>(m * n);
}

void print(Tower& tower, const Shape& shape, int path, int threads, int64_t batch, double seconds) {
    const Bytes from(STREAM), to(STREAM);
    std::vector<Sample> samples;
    std::vector<double> dots, reads, copies;
    tower.prepare(batch);
    tower.run(threads, batch);
    const int64_t end = now() + static_cast<int64_t>(seconds * 1e9);
    while (now() < end || samples.size() < 5) {
        for (int i = 0; i < 3; i++) samples.push_back(tower.run(threads, batch));
        dots.push_back(dots_a_second(*peak_of(path), threads));
        if (dots.size() % 4 != 1) continue;
        reads.push_back(read_rate(from, threads));
        copies.push_back(copy_rate(from, to, threads));
    }
    std::vector<double> all;
    for (const Sample& sample : samples) all.push_back(sample.ms);
    std::printf("{\"threads\": %d, \"batch\": %lld, \"tokens\": %lld, \"samples\": %zu, ", threads,
                static_cast<long long>(batch), static_cast<long long>(shape.tokens()), samples.size());
    std::printf("\"ms\": {\"min\": %.4f, \"low\": %.4f, \"median\": %.4f, \"high\": %.4f}, ", quartile(all, 0),
                quartile(all, 0.25), quartile(all, 0.5), quartile(all, 0.75));
    std::printf("\"peak_gops\": %.1f, \"read_gb\": %.2f, \"copy_gb\": %.2f, \"gops\": %.4f, \"weight_bytes\": %lld, ",
                quartile(dots, 0.5), quartile(reads, 0.5), quartile(copies, 0.5),
                2e-9 * tower.products() * static_cast<double>(batch), static_cast<long long>(tower.weights()));
    std::printf("\"gelu_ns\": %.4f, \"parts\": {", gelu_cost(path, shape));
    for (int i = 0; i < PARTS; i++)
        std::printf("%s\"%s\": %.4f", i ? ", " : "", PART_NAMES[i], median_of(samples, [&](auto& s) { return s.parts[i]; }));
    std::printf("}, \"steps\": {");
    for (int i = 0; i < STEPS; i++)
        std::printf("%s\"%s\": [%.4f, %.4f, %lld]", i ? ", " : "", STEP_NAMES[i],
                    median_of(samples, [&](auto& s) { return s.steps[i]; }),
                    least_of(samples, [&](auto& s) { return s.steps[i]; }),
                    static_cast<long long>(clocks.work[static_cast<size_t>(i)]));
    std::printf("}}\n");
    std::fflush(stdout);
}

}  // namespace

// path seconds width hidden heads layers patch size pooled, then pairs of threads and batch
int main(int argc, char** argv) {
    if (argc < 12) return 1;
    const int path = std::atoi(argv[1]) < 0 ? clipq_path() : std::atoi(argv[1]);
    const double seconds = std::atof(argv[2]);
    const Shape shape = {std::atoll(argv[3]), std::atoll(argv[4]), std::atoll(argv[5]), std::atoll(argv[6]),
                         std::atoll(argv[7]), std::atoll(argv[8]), std::atoi(argv[9]) != 0};
    if (!clipq_supports(path) || !peak_of(path)) return 2;
    Tower tower(path, shape);
    for (int i = 10; i + 1 < argc; i += 2) print(tower, shape, path, std::atoi(argv[i]), std::atoll(argv[i + 1]), seconds);
    return 0;
}
