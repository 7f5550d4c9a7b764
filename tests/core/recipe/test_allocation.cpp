// Bits under a budget: the best assignment beside all assignments, what is tied, what cannot be met, and the recipe that says it.
#include <QtTest/QtTest>
#include <chrono>
#include <cmath>
#include <random>

#include "core/base/error.h"
#include "core/recipe/allocation.h"

using namespace qb;

namespace {

using Groups = std::vector<std::vector<BudgetChoice>>;

struct Best {
  double cost = std::numeric_limits<double>::infinity();
  int64_t size = 0;
};

// All assignments.
Best brute_force(const Groups& groups, int64_t budget) {
  Best best;
  std::vector<size_t> at(groups.size(), 0);
  while (true) {
    double cost = 0;
    int64_t size = 0;
    for (size_t g = 0; g < groups.size(); ++g) cost += groups[g][at[g]].cost, size += groups[g][at[g]].size;
    if (size <= budget && (cost < best.cost || (cost == best.cost && size < best.size))) best = {cost, size};
    size_t g = 0;
    while (g < groups.size() && ++at[g] == groups[g].size()) at[g++] = 0;
    if (g == groups.size()) return best;
  }
}

Best sum_of(const Groups& groups, const std::vector<size_t>& chosen) {
  Best sum{0, 0};
  for (size_t g = 0; g < groups.size(); ++g) sum.cost += groups[g][chosen[g]].cost, sum.size += groups[g][chosen[g]].size;
  return sum;
}

// A model of `blocks` blocks with q and k (one input), o and experts; costs fall by four a bit, and are larger in the first block.
Sensitivity made_up(int blocks = 3) {
  Sensitivity s;
  s.model_name = "made up";
  s.loss = "kl";
  s.candidates = {"int2g64", "int4g64", "int8g64"};
  s.other_bytes = 1000;
  s.other_read_bytes = 600;
  s.experts = 4;
  s.experts_per_token = 1;
  auto add = [&](int block, const std::string& name, int input, bool expert, int64_t out, int64_t in, double weight) {
    LinearSensitivity l{block, name, "model.layers." + std::to_string(block) + "." + name, input, expert, out, in, 100, {}};
    for (const std::string& candidate : s.candidates) {
      CandidateSensitivity c;
      c.candidate = candidate;
      const QuantSpec spec = *parse_candidate(candidate);
      c.bits = std::llround(bits_per_weight(spec, out, in) * static_cast<double>(out * in));
      c.guided = c.fisher = c.relative_error = weight * std::pow(4.0, -spec.type.bits);
      l.candidates.push_back(c);
    }
    s.linears.push_back(l);
  };
  for (int b = 0; b < blocks; ++b) {
    const double weight = b == 0 ? 100 : 1;
    add(b, "self_attn.q_proj", 1, false, 64, 64, weight);
    add(b, "self_attn.k_proj", 1, false, 64, 64, weight * 0.01);
    add(b, "self_attn.o_proj", 2, false, 64, 64, weight * 10);
    add(b, "mlp.experts.0.up_proj", 3, true, 128, 64, weight);
    add(b, "mlp.experts.1.up_proj", 4, true, 128, 64, 0);
  }
  return s;
}

AllocationOptions at_bits(double bits) {
  AllocationOptions options;
  options.budget.bits = bits;
  return options;
}

template <class F>
std::string problem(F step) {
  try {
    step();
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

#define REQUIRE_TEXT(found, part) QVERIFY2((found).find(part) != std::string::npos, (found).c_str())

}  // namespace

class TestAllocation : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void candidates_are_short_texts() {
    QCOMPARE(parse_candidate("int4g64")->group_size, int64_t{64});
    QVERIFY(!parse_candidate("int4g64")->symmetric);
    QVERIFY(parse_candidate("int4g64s")->symmetric);
    QVERIFY(parse_candidate("int8c")->granularity == Granularity::channel);
    QVERIFY(parse_candidate("e4m3t")->symmetric);
    QVERIFY(parse_candidate("q4_K")->storage == Storage::q4_k);
    for (const char* wrong : {"int9g64", "int4", "int4g0", "int4g", "g64", "", "int4g64x"}) QVERIFY2(!parse_candidate(wrong), wrong);
    REQUIRE_TEXT(problem([] { parse_candidates({"int4g64", "int4g64"}); }), "twice");
  }

  void the_best_of_all_assignments() {
    std::mt19937_64 random(1);
    auto draw = [&](int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random); };
    int met = 0;
    for (int trial = 0; trial < 400; ++trial) {
      Groups groups(static_cast<size_t>(draw(1, 6)));
      int64_t most = 0;
      for (auto& group : groups) {
        group.resize(static_cast<size_t>(draw(1, 5)));
        // Few different costs, so that there are ties; nothing says that more bits cost less.
        for (auto& choice : group) choice = {draw(0, 30), trial % 2 ? static_cast<double>(draw(0, 5)) : std::exp(-static_cast<double>(draw(0, 1000)) / 100)};
        most += 30;
      }
      const int64_t budget = draw(0, most);
      const Best best = brute_force(groups, budget);
      const auto chosen = best_choices(groups, budget);
      QCOMPARE(chosen.has_value(), std::isfinite(best.cost));
      if (!chosen) continue;
      ++met;
      const Best found = sum_of(groups, *chosen);
      QVERIFY(found.size <= budget);
      QVERIFY2(std::abs(found.cost - best.cost) <= 1e-12 * (1 + best.cost), qPrintable(QString("%1, but %2 is possible").arg(found.cost).arg(best.cost)));
      if (trial % 2) QCOMPARE(found.size, best.size);  // of equal costs the smallest; small integers are summed exactly
    }
    QVERIFY(met > 100);
  }

  void ties_and_zeros() {
    // Dead groups cost nothing whatever they get: they get the least.
    const auto dead = best_choices({{{4, 0}, {2, 0}, {8, 0}}, {{2, 5}, {4, 1}, {8, 0.5}}}, 10);
    QVERIFY(dead);
    QCOMPARE(*dead, (std::vector<size_t>{1, 2}));
    QVERIFY(!best_choices({{{4, 1}}, {{4, 1}}}, 7));
    QCOMPARE(*best_choices({{{4, 1}}, {{4, 1}}}, 8), (std::vector<size_t>{0, 0}));
    QCOMPARE(best_choices({}, 0)->size(), size_t{0});
  }

  void a_large_model_takes_seconds() {
    // 80 blocks of a 70B model, each of its 560 linears by itself, eight candidates of uneven sizes.
    std::mt19937_64 random(2);
    std::lognormal_distribution<double> spread(0, 1.5);
    Groups groups;
    int64_t weights = 0;
    for (int block = 0; block < 80; ++block)
      for (const auto& [out, in] : {std::pair<int64_t, int64_t>{8192, 8192}, {1024, 8192}, {1024, 8192}, {8192, 8192}, {28672, 8192}, {28672, 8192}, {8192, 28672}}) {
        const double weight = spread(random);
        std::vector<BudgetChoice> choices;
        for (const char* candidate : {"int2g64", "int3g128", "int3g64", "int4g128", "int4g64", "int5g64", "int6g64", "int8g64"}) {
          const double bits = bits_per_weight(*parse_candidate(candidate), out, in);
          choices.push_back({static_cast<int64_t>(bits * static_cast<double>(out * in)), weight * std::exp(-1.3 * bits) * (1 + 0.1 * spread(random))});
        }
        groups.push_back(choices);
        weights += out * in;
      }
    const auto start = std::chrono::steady_clock::now();
    const auto budget = static_cast<int64_t>(4.3 * static_cast<double>(weights));
    const auto chosen = best_choices(groups, budget);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    QVERIFY(chosen);
    QVERIFY(sum_of(groups, *chosen).size <= budget);
    QVERIFY2(seconds < 20, qPrintable(QString::number(seconds)));
  }

  void what_engines_join_stays_equal() {
    const Sensitivity s = made_up();
    const Allocation tied = allocate(s, at_bits(4.5));
    QVERIFY(tied.total.bits_per_weight <= 4.5);
    for (size_t b = 0; b < 3; ++b) {
      QCOMPARE(tied.candidates[5 * b], tied.candidates[5 * b + 1]);
      QCOMPARE(tied.candidates[5 * b + 3], tied.candidates[5 * b + 4]);
    }
    AllocationOptions options = at_bits(4.5);
    options.tied = false;
    const Allocation free = allocate(s, options);
    QVERIFY(free.total.predicted < tied.total.predicted);
    for (size_t b = 0; b < 3; ++b) QCOMPARE(free.candidates[5 * b + 4], std::string("int2g64"));  // dead rows: nothing is lost
  }

  void budgets_mean_what_they_say() {
    const Sensitivity s = made_up();
    const Allocation bits = allocate(s, at_bits(3.2));
    double sum = 0, weights = 0;
    int64_t read = 8 * 600, all = 8 * 1000;
    for (size_t i = 0; i < s.linears.size(); ++i) {
      const auto& l = s.linears[i];
      const auto own = static_cast<double>(l.find(bits.candidates[i])->bits);
      sum += own;
      weights += static_cast<double>(l.out_features * l.in_features);
      all += static_cast<int64_t>(own);
      read += static_cast<int64_t>(l.expert ? own / 4 : own);  // one expert of four
    }
    QCOMPARE(bits.total.bits_per_weight, sum / weights);
    QCOMPARE(bits.total.bytes, all / 8);
    QCOMPARE(bits.total.read_bytes, read / 8);

    AllocationOptions by_size;
    by_size.budget.gib = static_cast<double>(bits.total.bytes) / 1073741824.0;
    QCOMPARE(allocate(s, by_size).total.bytes, bits.total.bytes);
    AllocationOptions by_speed;
    by_speed.budget.bandwidth = 1e6;
    by_speed.budget.tokens_per_second = 1e6 / static_cast<double>(bits.total.read_bytes);
    const Allocation fast = allocate(s, by_speed);
    QVERIFY(fast.total.tokens_per_second >= by_speed.budget.tokens_per_second * (1 - 1e-9));
    QVERIFY(fast.total.predicted <= bits.total.predicted);  // reads no more, and experts come cheap
    QCOMPARE(bits.uniform.size(), size_t{3});
    QVERIFY(bits.uniform[0].bits_per_weight < bits.uniform[1].bits_per_weight);
  }

  void impossible_budgets_say_what_is_possible() {
    const Sensitivity s = made_up();
    REQUIRE_TEXT(problem([&] { allocate(s, at_bits(2)); }), "2 bits a weight are not enough: the smallest candidates come to 2.28");
    AllocationOptions options;
    options.budget.gib = 1e-9;
    REQUIRE_TEXT(problem([&] { allocate(s, options); }), "GiB are not enough");
    options = {};
    options.budget.tokens_per_second = 1e9;
    REQUIRE_TEXT(problem([&] { allocate(s, options); }), "bandwidth");
    options.budget.bandwidth = 1e6;
    REQUIRE_TEXT(problem([&] { allocate(s, options); }), "out of reach");
    REQUIRE_TEXT(problem([&] { allocate(s, {}); }), "expected one budget");
    options = at_bits(4);
    options.cost = "measured";
    REQUIRE_TEXT(problem([&] { allocate(s, options); }), "was not measured");
    options = at_bits(4);
    options.candidates = {"int3g64"};
    REQUIRE_TEXT(problem([&] { allocate(s, options); }), "not among those of the sensitivity");
  }

  void the_recipe_says_it_in_few_patterns() {
    const Sensitivity s = made_up();
    Allocation a;
    for (const auto& l : s.linears) {
      a.modules.push_back(l.module);
      // o everywhere 8 bits; q and k 8 bits in block 0 alone
      a.candidates.push_back(l.name == "self_attn.o_proj" || (l.block == 0 && l.input == 1) ? "int8g64" : "int4g64");
    }
    const Scheme scheme = allocated_scheme(a, s);
    QCOMPARE(scheme.weights->type.bits, 4);
    QCOMPARE(scheme.overrides.size(), size_t{2});
    QCOMPARE(scheme.overrides[0].match, std::string("re:model\\.layers\\.0\\.(self_attn\\.q_proj|self_attn\\.k_proj)"));
    QCOMPARE(scheme.overrides[1].match, std::string("*.self_attn.o_proj"));
    for (size_t i = 0; i < a.modules.size(); ++i) QVERIFY(scheme.weights_of(a.modules[i]) == parse_candidate(a.candidates[i]));
    // Experts that differ inside a block are named one by one.
    a.candidates[3] = "int2g64";
    QVERIFY(allocated_scheme(a, s).weights_of(a.modules[3]) == parse_candidate("int2g64"));
  }

  void what_the_scheme_keeps_in_float_stays_so() {
    const Sensitivity s = made_up();
    Scheme scheme;
    scheme.weights = parse_candidate("int4g64");
    scheme.ignore = {"*.o_proj"};
    const Allocation a = allocate(s, at_bits(4.5), &scheme);
    QCOMPARE(a.modules.size(), size_t{12});
    QVERIFY(!allocated_scheme(a, s, scheme).weights_of("model.layers.0.self_attn.o_proj"));
  }

  void files_are_read_back() {
    Sensitivity s = made_up(1);
    s.linears[0].candidates[0].measured = 0.25;
    s.correlations = rank_correlations(s);
    const Sensitivity back = sensitivity_from_json(to_json(s), "x.json");
    QCOMPARE(back.linears.size(), s.linears.size());
    QCOMPARE(back.linears[0].candidates[0].measured, 0.25);
    QVERIFY(std::isnan(back.linears[0].candidates[1].measured));
    QCOMPARE(back.linears[4].candidates[2].bits, s.linears[4].candidates[2].bits);
    QCOMPARE(to_json(back), to_json(s));
    REQUIRE_TEXT(problem([] { sensitivity_from_json("{\"schema\": 2}", "x.json"); }), "x.json: schema 2");
    REQUIRE_TEXT(problem([] { sensitivity_from_json("[", "x.json"); }), "x.json");
  }

  void rank_correlation() {
    QCOMPARE(spearman({1, 2, 3, 4}, {10, 20, 30, 40}), 1.0);
    QCOMPARE(spearman({1, 2, 3, 4}, {4, 3, 2, 1}), -1.0);
    // scipy.stats.spearmanr([1, 2, 2, 4, 5], [2, 1, 3, 3, 9]) → 0.76315789…
    QVERIFY(std::abs(spearman({1, 2, 2, 4, 5}, {2, 1, 3, 3, 9}) - 0.763157894736842) < 1e-12);
    QVERIFY(std::isnan(spearman({1, 1, 1}, {1, 2, 3})));
  }
};

QTEST_GUILESS_MAIN(TestAllocation)
#include "test_allocation.moc"
