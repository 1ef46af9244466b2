// What the test programs share: random sizes and numbers, comparisons, and the loop over seeds.
// Every test program takes the number of cases and the first seed; `PROGRAM 1 SEED` runs one case again.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "../blocks.h"
#include "../clipq.h"
#include "../system.h"

namespace {

using namespace clipq;

// Made with their final size and never grown: the sanitizers then see the first byte beyond.
using Values = std::vector<float>;
using Bytes = std::vector<int8_t>;

constexpr float UNTOUCHED = 12345.0f;

class Random {
  public:
    explicit Random(int64_t seed) : engine_(static_cast<unsigned>(seed)) {}

    int64_t from_to(int64_t low, int64_t high) {
        return low + static_cast<int64_t>(engine_() % static_cast<unsigned>(high - low + 1));
    }
    bool chance(int64_t one_in) { return from_to(1, one_in) == 1; }
    // 1 to `most`, mostly small.
    int64_t size(int64_t most) { return from_to(1, chance(8) ? most : at_least(most / 3, 2)); }

    float value(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine_); }
    Values values(int64_t count, float low, float high) {
        Values all(static_cast<size_t>(count));
        for (float& v : all) v = value(low, high);
        return all;
    }
    Bytes weights(int64_t count) {
        Bytes all(static_cast<size_t>(count));
        for (int8_t& w : all) w = static_cast<int8_t>(from_to(-128, 127));
        return all;
    }
    // Where `count` sequences of up to `longest` rows begin and end.
    std::vector<int64_t> offsets(int64_t count, int64_t longest) {
        std::vector<int64_t> all(static_cast<size_t>(count + 1));
        const int64_t uniform = chance(2) ? size(longest) : 0;
        for (size_t i = 1; i < all.size(); i++) all[i] = all[i - 1] + (uniform ? uniform : size(longest));
        return all;
    }

  private:
    std::mt19937 engine_;
};

inline bool near(double value, double right, double error) { return std::fabs(value - right) <= error; }

inline bool same(const Values& a, const Values& b) {
    for (size_t i = 0; i < a.size() && i < b.size(); i++)
        if (a[i] != b[i] && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
    return a.size() == b.size();
}

// Bytes on a 64-byte boundary, as packed weights are best kept.
class Packed {
  public:
    explicit Packed(size_t size) : memory_(aligned_memory(size)), size_(size) {
        if (!memory_) std::abort();
    }

    uint8_t* data() const { return static_cast<uint8_t*>(memory_.get()); }
    size_t size() const { return size_; }

  private:
    std::unique_ptr<void, FreeAligned> memory_;
    size_t size_;
};

inline std::vector<int> supported_paths() {
    std::vector<int> paths;
    for (int path = 0; path < CLIPQ_PATHS; path++)
        if (clipq_supports(path)) paths.push_back(path);
    return paths;
}

// Counts and names what is wrong.
class Report {
  public:
    int64_t seed = 0;

    void check(bool right, const char* what, const char* where) {
        if (!right && ++wrong_ <= 20)
            std::printf("WRONG: %s, %s: seed %lld\n", what, where, static_cast<long long>(seed));
    }
    void check(bool right, const char* what, int path) {
        char where[32];
        std::snprintf(where, sizeof where, "path %d", path);
        check(right, what, where);
    }
    int status() const { return wrong_ != 0; }

  private:
    int64_t wrong_ = 0;
};

struct Seeds {
    int64_t cases, first;

    Seeds(int argc, char** argv)
        : cases(argc > 1 ? std::atoll(argv[1]) : 300), first(argc > 2 ? std::atoll(argv[2]) : 0) {}

    template <class Body>
    void each(Report& report, const Body& body) const {
        for (report.seed = first; report.seed < first + cases; report.seed++) {
            Random random(report.seed);
            body(random);
        }
    }
};

}  // namespace
