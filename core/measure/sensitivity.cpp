#include "core/measure/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>
#include <set>

#include "core/base/error.h"

namespace qb {

std::optional<QuantSpec> parse_candidate(const std::string& text) {
  if (const auto storage = parse_storage(text)) return spec_of(*storage);
  static const std::regex form("(int[1-8]|e[0-9]+m[0-9]+)(g([1-9][0-9]{0,8})|c|t)(s?)");
  std::smatch match;
  if (!std::regex_match(text, match, form)) return std::nullopt;
  const auto type = NumberType::parse(match[1]);
  if (!type) return std::nullopt;
  QuantSpec spec;
  spec.type = *type;
  spec.symmetric = match[4].length() > 0 || type->kind == NumberType::Kind::floating;
  spec.granularity = match[2] == "c" ? Granularity::channel : match[2] == "t" ? Granularity::tensor : Granularity::group;
  if (spec.granularity == Granularity::group) spec.group_size = std::stoll(match[3]);
  return spec;
}

std::vector<QuantSpec> parse_candidates(const std::vector<std::string>& texts) {
  std::vector<QuantSpec> specs;
  std::set<std::string> seen;
  for (const std::string& text : texts) {
    const auto spec = parse_candidate(text);
    if (!spec) throw InputError(fmt::format("candidate \"{}\": expected a type with its groups, such as int4g64, int8c, int4g128s (symmetric) or e4m3c, or a storage type such as q4_K", text));
    if (!seen.insert(text).second) throw InputError(fmt::format("candidate \"{}\" stands in the list twice", text));
    specs.push_back(*spec);
  }
  if (specs.empty()) throw InputError("no candidates: expected at least one, such as int4g64");
  return specs;
}

const CandidateSensitivity* LinearSensitivity::find(const std::string& candidate) const {
  for (const auto& c : candidates)
    if (c.candidate == candidate) return &c;
  return nullptr;
}

namespace {

using Json = nlohmann::json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

// Fields of JSON objects, with errors that name them.
struct Fields {
  const Json& json;
  const std::string& origin;
  template <class T>
  T get(const char* name) const {
    const auto it = json.find(name);
    if (it == json.end()) throw InputError(fmt::format("{}: \"{}\" is missing", origin, name));
    try {
      return it->get<T>();
    } catch (const Json::exception&) {
      throw InputError(fmt::format("{}: \"{}\" is of the wrong type", origin, name));
    }
  }
  double number(const char* name) const {
    const auto it = json.find(name);
    return it == json.end() || it->is_null() ? kUnknown : get<double>(name);
  }
  const Json& list(const char* name) const {
    const auto it = json.find(name);
    if (it == json.end() || !it->is_array()) throw InputError(fmt::format("{}: \"{}\" is no list", origin, name));
    return *it;
  }
};

Json encode(const CandidateSensitivity& c) {
  return {{"candidate", c.candidate}, {"bits", c.bits}, {"output_error", number(c.output_error)}, {"relative_error", number(c.relative_error)}, {"fisher", number(c.fisher)},
          {"guided", number(c.guided)}, {"measured", number(c.measured)}, {"measured_error", number(c.measured_error)}};
}

Json encode(const LinearSensitivity& l) {
  Json candidates = Json::array();
  for (const auto& c : l.candidates) candidates.push_back(encode(c));
  return {{"block", l.block}, {"name", l.name}, {"module", l.module}, {"input", l.input}, {"expert", l.expert}, {"out_features", l.out_features},
          {"in_features", l.in_features}, {"tokens", l.tokens}, {"candidates", std::move(candidates)}};
}

LinearSensitivity decode(const Json& json, const std::string& origin) {
  if (!json.is_object()) throw InputError(fmt::format("{}: expected an object for a linear", origin));
  const Fields f{json, origin};
  LinearSensitivity l;
  l.block = f.get<int>("block");
  l.name = f.get<std::string>("name");
  l.module = f.get<std::string>("module");
  l.input = f.get<int>("input");
  l.expert = f.get<bool>("expert");
  l.out_features = f.get<int64_t>("out_features");
  l.in_features = f.get<int64_t>("in_features");
  l.tokens = f.get<int64_t>("tokens");
  if (l.out_features <= 0 || l.in_features <= 0) throw InputError(fmt::format("{}: {} has the size {} × {}", origin, l.module, l.out_features, l.in_features));
  for (const Json& entry : f.list("candidates")) {
    if (!entry.is_object()) throw InputError(fmt::format("{}: expected an object for a candidate of {}", origin, l.module));
    const Fields g{entry, origin};
    CandidateSensitivity c;
    c.candidate = g.get<std::string>("candidate");
    c.bits = g.get<int64_t>("bits");
    c.output_error = g.number("output_error");
    c.relative_error = g.number("relative_error");
    c.fisher = g.number("fisher");
    c.guided = g.number("guided");
    c.measured = g.number("measured");
    c.measured_error = g.number("measured_error");
    l.candidates.push_back(std::move(c));
  }
  return l;
}

Json parsed(const std::string& text, const std::string& origin) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw InputError(fmt::format("{}: no JSON object", origin));
  return json;
}

// Places in ascending order from 0, equal values sharing the mean of theirs.
std::vector<double> ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> result(values.size());
  for (size_t i = 0, j; i < order.size(); i = j) {
    for (j = i; j < order.size() && values[order[j]] == values[order[i]]; ++j) {}
    for (size_t k = i; k < j; ++k) result[order[k]] = (static_cast<double>(i) + static_cast<double>(j - 1)) / 2;
  }
  return result;
}

struct Measure {
  const char* name;
  double CandidateSensitivity::*value;
};
constexpr Measure kMeasures[] = {{"relative_error", &CandidateSensitivity::relative_error},
                                 {"fisher", &CandidateSensitivity::fisher},
                                 {"guided", &CandidateSensitivity::guided},
                                 {"measured", &CandidateSensitivity::measured}};

}  // namespace

std::string to_json(const LinearSensitivity& linear) { return encode(linear).dump(); }

LinearSensitivity linear_sensitivity_from_json(const std::string& json, const std::string& origin) { return decode(parsed(json, origin), origin); }

std::string to_json(const Sensitivity& s) {
  Json linears = Json::array(), correlations = Json::array();
  for (const auto& l : s.linears) linears.push_back(encode(l));
  for (const auto& c : s.correlations) correlations.push_back({{"first", c.first}, {"second", c.second}, {"candidate", c.candidate}, {"pairs", c.pairs}, {"value", number(c.value)}});
  return Json{{"schema", 1}, {"model", s.model_path}, {"model_name", s.model_name}, {"model_hash", s.model_hash}, {"corpus", s.corpus}, {"calibration_hash", s.calibration_hash},
              {"samples", s.samples}, {"seq_len", s.seq_len}, {"tokens", s.tokens}, {"dtype", s.dtype}, {"rounding", s.rounding}, {"loss", s.loss}, {"seed", s.seed},
              {"measured_windows", s.measured_windows}, {"candidates", s.candidates}, {"linears", std::move(linears)}, {"correlations", std::move(correlations)},
              {"other_bytes", s.other_bytes}, {"other_read_bytes", s.other_read_bytes}, {"experts", s.experts}, {"experts_per_token", s.experts_per_token}, {"seconds", s.seconds}}
      .dump(1, ' ', false, Json::error_handler_t::replace);
}

Sensitivity sensitivity_from_json(const std::string& text, const std::string& origin) {
  const Json json = parsed(text, origin);
  const Fields f{json, origin};
  if (const int schema = f.get<int>("schema"); schema != 1) throw InputError(fmt::format("{}: schema {}, expected 1", origin, schema));
  Sensitivity s;
  s.model_path = f.get<std::string>("model");
  s.model_name = f.get<std::string>("model_name");
  s.model_hash = f.get<std::string>("model_hash");
  s.corpus = f.get<std::string>("corpus");
  s.calibration_hash = f.get<std::string>("calibration_hash");
  s.samples = f.get<int64_t>("samples");
  s.seq_len = f.get<int64_t>("seq_len");
  s.tokens = f.get<int64_t>("tokens");
  s.dtype = f.get<std::string>("dtype");
  s.rounding = f.get<std::string>("rounding");
  s.loss = f.get<std::string>("loss");
  s.seed = f.get<uint64_t>("seed");
  s.measured_windows = f.get<int64_t>("measured_windows");
  s.candidates = f.get<std::vector<std::string>>("candidates");
  parse_candidates(s.candidates);
  for (const Json& entry : f.list("linears")) s.linears.push_back(decode(entry, origin));
  for (const Json& entry : f.list("correlations")) {
    const Fields g{entry, origin};
    s.correlations.push_back({g.get<std::string>("first"), g.get<std::string>("second"), g.get<std::string>("candidate"), g.get<int64_t>("pairs"), g.number("value")});
  }
  s.other_bytes = f.get<int64_t>("other_bytes");
  s.other_read_bytes = f.get<int64_t>("other_read_bytes");
  s.experts = f.get<int64_t>("experts");
  s.experts_per_token = f.get<int64_t>("experts_per_token");
  s.seconds = f.get<double>("seconds");
  return s;
}

double spearman(const std::vector<double>& a, const std::vector<double>& b) {
  const size_t n = a.size();
  if (n != b.size()) throw InternalError("a rank correlation of lists of different lengths");
  if (n < 3) return kUnknown;
  const auto x = ranks(a), y = ranks(b);
  const double mean = static_cast<double>(n - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < n; ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kUnknown;
}

std::vector<RankCorrelation> rank_correlations(const Sensitivity& s) {
  std::vector<RankCorrelation> result;
  std::vector<std::string> under = s.candidates;
  under.emplace_back();
  for (const auto& first : kMeasures)
    for (const auto& second : kMeasures) {
      if (&first >= &second) continue;
      for (const std::string& candidate : under) {
        std::vector<double> a, b;
        for (const auto& l : s.linears)
          for (const auto& c : l.candidates)
            if ((candidate.empty() || c.candidate == candidate) && std::isfinite(c.*first.value) && std::isfinite(c.*second.value)) {
              a.push_back(c.*first.value);
              b.push_back(c.*second.value);
            }
        if (a.size() >= 3) result.push_back({first.name, second.name, candidate, static_cast<int64_t>(a.size()), spearman(a, b)});
      }
    }
  return result;
}

}  // namespace qb
