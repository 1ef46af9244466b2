// Any number of threads gives the same bits, and so do calls side by side. The threads are the library's own, since no
// OpenMP runtime is loaded here. Starting them is slow, so one case here stands for a hundred elsewhere.
#include <chrono>
#include <thread>

#include "emulated.h"
#include "stacks.h"

namespace {

// Every step of a kernel on a team of so many, however little work that is.
Values on_a_team(const Kernel& kernel, int threads, Random random) {
    const int64_t m = random.size(100), n = random.size(200), heads = random.from_to(1, 3), dim = random.size(20);
    const int64_t k = heads * dim, rows = at_least(m / 3, 1);
    const Matrix matrix(random, n, k);
    const Values x = random.values(m * k, -3, 3), ones(static_cast<size_t>(k), 1.0f), zeros(static_cast<size_t>(k));
    const Packed packed(kernel.packed_size(n, k)), acts(static_cast<size_t>(kernel.row_stride(k) * m));
    Values scale(static_cast<size_t>(m)), y(static_cast<size_t>(m * n + rows * k));
    std::vector<int32_t> zero_point(static_cast<size_t>(m));
    const Rows quantized = {acts.data(), scale.data(), zero_point.data()};
    kernel.pack(matrix.weight.data(), n, k, packed.data());
    const Linear job = {quantized, packed.data(), matrix.scale.data(), matrix.bias.data(), y.data(), n, n, k,
                        CLIPQ_GELU, false, nullptr};
    const int64_t each = attention_scratch(kernel, rows, dim);
    Values scratch(static_cast<size_t>(each * threads));
    const Span span = {0, rows, 0, rows, 1};
    const AttentionStep step =
        attention_of(x.data(), x.data(), y.data() + m * n, heads, dim, &span, 1, NO_INTEGERS, scratch.data(), each);
    with_team(threads, true, [&](Team& team) {
        quantize(team, kernel, {x.data(), k, k, 1e-5f, ones.data(), zeros.data()}, false, quantized, m);
        multiply(team, kernel, job, m);
        if (m >= 3 * rows) attend(team, kernel, step);
    });
    return y;
}

// Long enough for the C ABI to start threads.
Values linear_on(int path, int threads, Random random) {
    const int64_t m = random.from_to(100, 160), n = 600, k = 600;
    const Matrix matrix(random, n, k);
    const Packed packed = matrix.packed(path);
    const Values x = random.values(m * k, -3, 3);
    Values y(static_cast<size_t>(m * n));
    const int status = clipq_linear(path, threads, x.data(), k, m, packed.data(), matrix.scale.data(),
                                    matrix.bias.data(), y.data(), n, n, k, 0, 0, 0);
    return status ? Values() : y;
}

Values blocks_on(int path, int threads, Random random) {
    const Stack stack(random, 4, 24, 10, 60);
    std::vector<int64_t> keep;
    for (size_t i = 1; i < stack.offsets.size(); i++) keep.push_back(stack.offsets[i] - 1);
    Values all = stack.run(path, threads);
    const Values kept = stack.run(path, threads, &keep);
    all.insert(all.end(), kept.begin(), kept.end());
    return all;
}

// Two threads, one of which comes only when the other is through five steps, or after ten seconds.
bool nobody_waits_for_who_comes_late() {
    std::atomic<int> steps{0}, sum{0};
    std::atomic<bool> waited{false};
    with_team(2, true, [&](Team& team) {
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (team.seat() == 1 && steps < 5 && !waited) waited = std::chrono::steady_clock::now() > give_up;
        for (int step = 0; step < 9; step++) {
            team.each(step == 3 ? 0 : 7, [&](int64_t task) { sum += static_cast<int>(task); });
            if (team.seat() == 0) steps++;
        }
    });
    return !waited && sum == 8 * 21;
}

template <class Compute>
bool side_by_side(const Compute& compute, const Values& right) {
    Values results[3];
    std::vector<std::thread> callers;
    for (Values& result : results) callers.emplace_back([&] { result = compute(2); });
    for (std::thread& caller : callers) caller.join();
    for (const Values& result : results)
        if (!same(result, right)) return false;
    return true;
}

template <class Compute, class Where>
void check(Report& report, const Compute& compute, const char* what, Where where) {
    const Values alone = compute(1);
    report.check(!alone.empty() && same(alone, compute(2)) && same(alone, compute(4)), what, where);
    report.check(side_by_side(compute, alone), what, where);
}

}  // namespace

int main(int argc, char** argv) {
    Seeds seeds(argc, argv);
    seeds.cases = at_least(seeds.cases / 100, 1);
    const std::vector<NamedKernel> kernels = testable_kernels();
    Report report;
    const int all = processors();
    report.check(all >= 1 && worth_threads(1000, INT64_MAX) == at_most(all, 1000) && worth_threads(1000, 0) == 1 &&
                     worth_threads(1, INT64_MAX) == 1 && worth_threads(-1, INT64_MAX) == 1,
                 "threads beyond the processors", "every kernel");
    report.check(nobody_waits_for_who_comes_late(), "a thread that comes late", "every kernel");
    seeds.each(report, [&](const Random& random) {
        for (const auto& [name, kernel] : kernels)
            check(report, [&, kernel = kernel](int threads) { return on_a_team(*kernel, threads, random); },
                  "a team", name);
        if (report.seed % 10 != 0) return;
        for (const int path : supported_paths()) {
            check(report, [&](int threads) { return linear_on(path, threads, random); }, "a long linear", path);
            check(report, [&](int threads) { return blocks_on(path, threads, random); }, "long blocks", path);
        }
    });
    for (const auto& [name, kernel] : kernels)
        std::printf("threads of %s: %lld cases\n", name, static_cast<long long>(seeds.cases));
    return report.status();
}
