#include "core/measure/report_json.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"

namespace qb {

std::string to_text(RunStatus value) {
  switch (value) {
    case RunStatus::queued: return "queued";
    case RunStatus::running: return "running";
    case RunStatus::paused: return "paused";
    case RunStatus::finished: return "finished";
    case RunStatus::cancelled: return "cancelled";
    case RunStatus::interrupted: return "interrupted";
    case RunStatus::failed: return "failed";
  }
  throw InternalError("unknown run status");
}

std::optional<RunStatus> parse_run_status(const std::string& text) {
  for (RunStatus s : {RunStatus::queued, RunStatus::running, RunStatus::paused, RunStatus::finished, RunStatus::cancelled, RunStatus::interrupted, RunStatus::failed})
    if (to_text(s) == text) return s;
  return std::nullopt;
}

namespace {

using Json = nlohmann::json;

// A struct's fields are listed once (fields() below) and serve writing and reading.
class Writer {
 public:
  template <class T>
  void operator()(const char* name, const T& value) { json[name] = encode(value); }
  // A field that reports of earlier versions lack.
  template <class T>
  void optional(const char* name, const T& value) { json[name] = encode(value); }
  Json json = Json::object();

 private:
  template <class T>
  static Json encode(const T& value);
};

class Reader {
 public:
  Reader(const Json& json, std::string origin, std::string place) : json_(json), origin_(std::move(origin)), place_(std::move(place)) {
    if (!json.is_object()) fail(place_, "expected an object");
  }
  template <class T>
  void operator()(const char* name, T& value) {
    const std::string path = place_.empty() ? name : place_ + "." + name;
    const auto it = json_.find(name);
    if (it == json_.end()) fail(path, "is missing");
    decode(*it, value, path);
  }
  template <class T>
  void optional(const char* name, T& value) {
    if (json_.contains(name)) (*this)(name, value);
  }

 private:
  [[noreturn]] void fail(const std::string& path, const std::string& what) const {
    throw InputError(fmt::format("{}: {}: {}", origin_, path.empty() ? "report" : path, what));
  }
  template <class T>
  void decode(const Json& json, T& value, const std::string& path) const;

  const Json& json_;
  std::string origin_, place_;
};

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, Histogram>
void fields(Ar& ar, R& h) {
  ar("low", h.low);
  ar("high", h.high);
  ar("counts", h.counts);
  ar("below", h.below);
  ar("above", h.above);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, OutlierChannel>
void fields(Ar& ar, R& c) {
  ar("channel", c.channel);
  ar("abs_max", c.abs_max);
  ar("ratio", c.ratio);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, LinearReport>
void fields(Ar& ar, R& l) {
  ar("block", l.block);
  ar("name", l.name);
  ar("subset", l.subset);
  ar("out_features", l.out_features);
  ar("in_features", l.in_features);
  ar("scheme", l.scheme);
  ar.optional("note", l.note);
  ar("bits_per_weight", l.bits_per_weight);
  ar("weight_mse", l.weight_mse);
  ar("weight_max_error", l.weight_max_error);
  ar("weight_sqnr_db", l.weight_sqnr_db);
  ar("output_relative_error", l.output_relative_error);
  ar("output_sqnr_db", l.output_sqnr_db);
  ar("output_cosine", l.output_cosine);
  ar("weight_kurtosis", l.weight_kurtosis);
  ar("weight_kurtosis_after", l.weight_kurtosis_after);
  ar("input_kurtosis", l.input_kurtosis);
  ar("input_abs_max", l.input_abs_max);
  ar("weight_before", l.weight_before);
  ar("weight_after", l.weight_after);
  ar("weight_error", l.weight_error);
  ar("input_before", l.input_before);
  ar("input_after", l.input_after);
  ar("output_error", l.output_error);
  ar("outliers", l.outliers);
  ar("measured_tokens", l.measured_tokens);
  ar("seconds", l.seconds);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, BlockReport>
void fields(Ar& ar, R& b) {
  ar("block", b.block);
  ar("linears", b.linears);
  ar("output_relative_error", b.output_relative_error);
  ar("measured_tokens", b.measured_tokens);
  ar("seconds", b.seconds);
  ar("peak_rss_bytes", b.peak_rss_bytes);
  ar.optional("statistics_cached", b.statistics_cached);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, StageCost>
void fields(Ar& ar, R& c) {
  ar("stage", c.stage);
  ar("seconds", c.seconds);
  ar("cpu_seconds", c.cpu_seconds);
  ar("device_seconds", c.device_seconds);
  ar("peak_rss_bytes", c.peak_rss_bytes);
  ar("peak_device_bytes", c.peak_device_bytes);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, Metric>
void fields(Ar& ar, R& m) {
  ar("name", m.name);
  ar("value", m.value);
  ar("standard_error", m.standard_error);
  ar("values", m.values);
  ar("histogram", m.histogram);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, EvaluationResult>
void fields(Ar& ar, R& e) {
  ar("evaluator", e.evaluator);
  ar("corpus", e.corpus);
  ar("corpus_hash", e.corpus_hash);
  ar("seq_len", e.seq_len);
  ar("windows", e.windows);
  ar("windows_total", e.windows_total);
  ar("corpus_tokens", e.corpus_tokens);
  ar("dtype", e.dtype);
  ar("bos", e.bos);
  ar("settings", e.settings);
  ar("float_model", e.float_model);
  ar("seconds", e.seconds);
  ar("metrics", e.metrics);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, Environment>
void fields(Ar& ar, R& e) {
  ar("program_version", e.program_version);
  ar("torch_version", e.torch_version);
  ar("device", e.device);
  ar("cpu", e.cpu);
  ar("host", e.host);
  ar("threads", e.threads);
}

template <class Ar, class R>
  requires std::is_same_v<std::remove_const_t<R>, RunReport>
void fields(Ar& ar, R& r) {
  ar("id", r.id);
  ar("name", r.name);
  ar("status", r.status);
  ar("error", r.error);
  ar("model_path", r.model_path);
  ar("model_name", r.model_name);
  ar("model_hash", r.model_hash);
  ar("calibration_hash", r.calibration_hash);
  ar("recipe_hash", r.recipe_hash);
  ar("scheme", r.scheme);
  ar("pipeline", r.pipeline);
  ar.optional("sweep", r.sweep);
  ar("started", r.started);
  ar("finished", r.finished);
  ar("seed", r.seed);
  ar("load_seconds", r.load_seconds);
  ar("quantize_seconds", r.quantize_seconds);
  ar("measure_seconds", r.measure_seconds);
  ar("evaluate_seconds", r.evaluate_seconds);
  ar("peak_rss_bytes", r.peak_rss_bytes);
  ar.optional("peak_device_bytes", r.peak_device_bytes);
  ar("bits_per_weight", r.bits_per_weight);
  ar("float_bytes", r.float_bytes);
  ar("quantized_bytes", r.quantized_bytes);
  ar.optional("model_float_bytes", r.model_float_bytes);
  ar.optional("model_bytes", r.model_bytes);
  ar("calibration_tokens", r.calibration_tokens);
  ar.optional("statistics_cached_blocks", r.statistics_cached_blocks);
  ar.optional("style", r.style);
  ar("blocks", r.blocks);
  ar.optional("vocabulary", r.vocabulary);
  ar("evaluations", r.evaluations);
  ar.optional("costs", r.costs);
  ar("environment", r.environment);
}

template <class T>
concept HasFields = std::is_class_v<T> && requires(Writer& w, const T& value) { fields(w, value); };

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

// JSON has no infinity: ±1e999 would not parse, so infinities are texts and NaN is null.
Json encode_real(double value) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

template <class T>
Json Writer::encode(const T& value) {
  if constexpr (std::is_same_v<T, double>) {
    return encode_real(value);
  } else if constexpr (std::is_same_v<T, RunStatus>) {
    return to_text(value);
  } else if constexpr (std::is_same_v<T, std::map<std::string, KnobValue>>) {
    Json object = Json::object();
    for (const auto& [name, setting] : value) object[name] = std::visit([](const auto& v) { return Json(v); }, setting);
    return object;
  } else if constexpr (HasFields<T>) {
    Writer writer;
    fields(writer, value);
    return std::move(writer.json);
  } else if constexpr (IsVector<T>::value) {
    Json array = Json::array();
    for (const auto& element : value) array.push_back(encode(element));
    return array;
  } else {
    return value;
  }
}

template <class T>
void Reader::decode(const Json& json, T& value, const std::string& path) const {
  if constexpr (std::is_same_v<T, double>) {
    if (json.is_number())
      value = json.get<double>();
    else if (json.is_null())
      value = std::numeric_limits<double>::quiet_NaN();
    else if (json == "inf" || json == "-inf")
      value = (json == "inf" ? 1 : -1) * std::numeric_limits<double>::infinity();
    else
      fail(path, "expected a number");
  } else if constexpr (std::is_same_v<T, RunStatus>) {
    const auto status = json.is_string() ? parse_run_status(json.get<std::string>()) : std::nullopt;
    if (!status) fail(path, "expected a run status, found " + json.dump());
    value = *status;
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) fail(path, "expected true or false");
    value = json.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    const bool fits = json.is_number_unsigned() ? std::in_range<T>(json.get<uint64_t>())
                                                : json.is_number_integer() && std::in_range<T>(json.get<int64_t>());
    if (!fits) fail(path, fmt::format("expected an integer of {} bits, found {}", 8 * sizeof(T), json.dump().substr(0, 40)));
    value = json.get<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) fail(path, "expected a text");
    value = json.get<std::string>();
  } else if constexpr (std::is_same_v<T, std::map<std::string, KnobValue>>) {
    if (!json.is_object()) fail(path, "expected an object");
    value.clear();
    for (const auto& [name, setting] : json.items()) {
      if (setting.is_boolean())
        value[name] = setting.template get<bool>();
      else if (setting.is_number_integer())
        value[name] = setting.template get<int64_t>();
      else if (setting.is_number())
        value[name] = setting.template get<double>();
      else if (setting.is_string())
        value[name] = setting.template get<std::string>();
      else
        fail(path + "." + name, "expected a number, a text, true or false");
    }
  } else if constexpr (IsVector<T>::value) {
    if (!json.is_array()) fail(path, "expected a list");
    value.clear();
    value.reserve(json.size());
    for (size_t i = 0; i < json.size(); ++i) {
      value.emplace_back();
      decode(json[i], value.back(), fmt::format("{}[{}]", path, i));
    }
  } else {
    Reader reader(json, origin_, path);
    fields(reader, value);
  }
}

// Reports of earlier versions held perplexities alone, each with fields of its own.
Json evaluations_of(const Json& perplexities) {
  Json list = Json::array();
  for (Json entry : perplexities) {
    if (!entry.is_object()) return perplexities;  // the reader tells what is wrong
    const auto taken = [&](const char* name) {
      Json value = entry.contains(name) ? entry[name] : Json();
      entry.erase(name);
      return value;
    };
    const Json histogram = {{"low", 0}, {"high", 0}, {"counts", Json::array()}, {"below", 0}, {"above", 0}};
    const Json windows = taken("window_nll"), perplexity = taken("perplexity"), error = taken("standard_error");
    const double of_mean = perplexity.is_number() && error.is_number() ? error.get<double>() / perplexity.get<double>() : 0;
    entry["metrics"] = {{{"name", "perplexity"}, {"value", perplexity}, {"standard_error", error}, {"values", Json::array()}, {"histogram", histogram}},
                        {{"name", "nll"}, {"value", taken("mean_nll")}, {"standard_error", of_mean}, {"values", windows}, {"histogram", histogram}}};
    entry["evaluator"] = "perplexity";
    entry["settings"] = Json::object();
    if (!entry.contains("bos")) entry["bos"] = "";
    list.push_back(std::move(entry));
  }
  return list;
}

template <class T>
std::string write(const T& value) {
  Writer writer;
  writer("format", 1);
  fields(writer, value);
  // Messages may quote file names that are not UTF-8: a report must be written all the same.
  return writer.json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

template <class T>
T read(const std::string& text, const std::string& origin) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& e) {
    throw InputError(fmt::format("{}: not valid JSON: {}", origin, e.what()));
  }
  if constexpr (std::is_same_v<T, RunReport>)
    if (json.is_object() && json.contains("perplexities") && !json.contains("evaluations")) json["evaluations"] = evaluations_of(json["perplexities"]);
  Reader reader(json, origin, "");
  int format = 0;
  reader("format", format);
  if (format != 1) throw InputError(fmt::format("{}: format is {}, expected 1; written by a newer version?", origin, format));
  T value;
  fields(reader, value);
  return value;
}

}  // namespace

std::string to_json(const RunReport& report) { return write(report); }
std::string to_json(const BlockReport& report) { return write(report); }
std::string to_json(const EvaluationResult& result) { return write(result); }
RunReport run_report_from_json(const std::string& json, const std::string& origin) { return read<RunReport>(json, origin); }
BlockReport block_report_from_json(const std::string& json, const std::string& origin) { return read<BlockReport>(json, origin); }
EvaluationResult evaluation_from_json(const std::string& json, const std::string& origin) { return read<EvaluationResult>(json, origin); }

}  // namespace qb
