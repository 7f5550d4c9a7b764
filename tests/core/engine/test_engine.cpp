#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <csignal>
#include <sys/resource.h>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/block_store.h"
#include "core/engine/device.h"
#include "core/engine/patterns.h"
#include "core/engine/run_state.h"
#include "core/quant/stored_spec.h"
#include "tests/core/engine/tiny_model.h"

using namespace qb;
using namespace qb::testing;
namespace fs = std::filesystem;

namespace {

// What a run shows of its blocks.
struct Seen {
  std::vector<int> blocks;
  std::vector<at::Tensor> float_outputs, quantized_outputs;
  std::function<void(const BlockView&)> observer() {
    return [this](const BlockView& view) {
      blocks.push_back(view.work.block.index);
      float_outputs.push_back(view.float_output);
      quantized_outputs.push_back(view.quantized_output);
    };
  }
};

// Names and bytes of all block files.
std::map<std::string, std::string> block_files(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder / "blocks")) files[entry.path().filename().string()] = read_text(entry.path());
  return files;
}

bool only_blocks_and_state(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != "blocks" && name != "state.json" && !(name.starts_with("block-") && name.ends_with(".safetensors"))) return false;
  }
  return true;
}

int64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("RssAnon:", 0) == 0) return std::stoll(line.substr(8)) * 1024;
  return 0;
}

QuantSpec static_inputs(const char* type, bool symmetric) {
  QuantSpec spec{.type = *NumberType::parse(type), .symmetric = symmetric, .granularity = Granularity::tensor};
  spec.dynamic = false;
  return spec;
}

// A new process that runs the job and is killed when block 1 is written but not yet counted.
[[noreturn]] void run_and_be_killed(const char* model, const char* folder) {
  run_engine(tiny_job(model, folder), {}, [](const BlockView& view) {
    if (view.work.block.index == 1) std::raise(SIGKILL);
  });
  std::exit(0);
}

const QuantizedLinear* linear_of(const QuantizedModel& model, const std::string& module) { return linears_by_weight(model).at(module + ".weight"); }

}  // namespace

class TestEngine : public QObject {
  Q_OBJECT
  QTemporaryDir temporary_;
  fs::path root_, model_;
  fs::path fresh(const char* name) const { return root_ / name; }

 private Q_SLOTS:
  void initTestCase() {
    initialise_compute(2);
    root_ = temporary_.path().toStdString();
    model_ = write_tiny_llama(root_ / "model");
  }

  void rounding_alone_needs_no_calibration() {
    EngineJob job = tiny_job(model_, fresh("plain"));
    job.calibration = {};
    Seen seen;
    run_engine(job, {}, seen.observer());
    QCOMPARE(seen.blocks, (std::vector<int>{0, 1, 2}));
    QVERIFY(!seen.quantized_outputs[0].defined());
    const auto source = quantized_source(job.model, job.folder);
    for (const BlockInfo& block : job.model->info.blocks)
      for (const LinearInfo& linear : block.linears) {
        const at::Tensor w = job.model->source->read(linear.tensor), value = source->read(linear.tensor);
        QVERIFY(at::equal(value, quantize(w, *job.scheme.weights).dequantize()));
        QVERIFY(!at::equal(value, w));
        QCOMPARE(source->find(linear.tensor)->shape, (std::vector<int64_t>{linear.out_features, linear.in_features}));
      }
    // Everything else is the float model's.
    const std::string norm = "model.layers.0.input_layernorm.weight";
    QVERIFY(at::equal(source->read(norm), job.model->source->read(norm)));
    QVERIFY(only_blocks_and_state(job.folder));
  }

  void a_float_model_is_not_rounded_to_the_forward_passs_dtype_first() {
    EngineJob job = tiny_job(model_, fresh("bf16"));
    job.dtype = at::kBFloat16;
    run_engine(job, {}, {});
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    const at::Tensor expected = quantize(job.model->source->read(name), *job.scheme.weights).dequantize();
    QVERIFY(at::equal(quantized_source(job.model, job.folder)->read(name), expected));
  }

  void stored_blocks_take_about_their_bits() {
    EngineJob job = tiny_job(model_, fresh("bits"));
    job.scheme.weights->granularity = Granularity::channel;
    job.scheme.weights->type = *NumberType::parse("e4m3");
    run_engine(job, {}, {});
    int64_t weights = 0;
    for (const LinearInfo& linear : job.model->info.blocks[0].linears) weights += linear.out_features * linear.in_features;
    const auto bytes = static_cast<int64_t>(fs::file_size(block_path(job.folder, 0)));
    QVERIFY2(bytes < weights + 8000, qPrintable(QString::number(bytes)));
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    QVERIFY(at::equal(quantized_source(job.model, job.folder)->read(name), quantize(job.model->source->read(name), *job.scheme.weights).dequantize()));
  }

  void outputs_are_those_of_the_quantized_model() {
    EngineJob job = tiny_job(model_, fresh("outputs"));
    Seen seen;
    run_engine(job, {}, seen.observer());
    // Reference: both models run whole, by the decoder.
    at::Tensor ids = at::empty({2, 24}, at::kLong);
    for (int64_t s = 0; s < 2; ++s)
      for (int64_t i = 0; i < 24; ++i) ids[s][i] = job.calibration.samples[s][i];
    Decoder of_float(job.model, job.model->source, at::kFloat), of_quantized(job.model, quantized_source(job.model, job.folder), at::kFloat);
    const LinearTap tap = activation_tap(job.scheme);
    at::Tensor f = of_float.embed(ids), q = of_float.embed(ids);
    for (int b = 0; b < 3; ++b) {
      f = of_float.forward(of_float.load_block(b), f);
      q = of_quantized.forward(of_quantized.load_block(b), q, {.at_linear = tap});
      QVERIFY(at::allclose(seen.float_outputs[b], f.reshape({48, -1}), 1e-4, 1e-4));
      QVERIFY(at::allclose(seen.quantized_outputs[b], q.reshape({48, -1}), 1e-4, 1e-4));
      QVERIFY(!at::allclose(seen.quantized_outputs[b], seen.float_outputs[b], 1e-2, 1e-2));
    }
  }

  void without_propagation_each_block_sees_the_float_models_states() {
    EngineJob on = tiny_job(model_, fresh("on")), off = tiny_job(model_, fresh("off"));
    off.propagate_quantized = false;
    Seen with, without;
    run_engine(on, {}, with.observer());
    run_engine(off, {}, without.observer());
    for (int b = 0; b < 3; ++b) QVERIFY(at::allclose(with.float_outputs[b], without.float_outputs[b], 1e-5, 1e-5));
    QVERIFY(at::allclose(with.quantized_outputs[0], without.quantized_outputs[0], 1e-5, 1e-5));  // the first block sees the same
    for (int b = 1; b < 3; ++b) QVERIFY(!at::allclose(with.quantized_outputs[b], without.quantized_outputs[b], 1e-2, 1e-2));
    // Errors add up where they are passed on.
    auto error = [](const Seen& s) { return (s.quantized_outputs[2] - s.float_outputs[2]).norm().item<double>(); };
    QVERIFY(error(with) > error(without));
  }

  void a_cancelled_run_resumes_to_the_same_bytes_and_outputs() {
    for (const auto& [propagate, fixed] : {std::pair{true, false}, {false, false}, {true, true}, {false, true}}) {
      const std::string kind = (propagate ? "" : "-off") + std::string(fixed ? "-static" : "");
      EngineJob whole = tiny_job(model_, root_ / ("whole" + kind)), cut = tiny_job(model_, root_ / ("cut" + kind));
      whole.propagate_quantized = cut.propagate_quantized = propagate;
      if (fixed) whole.scheme.activations = cut.scheme.activations = static_inputs("int8", false);
      Seen expected, before, after;
      run_engine(whole, {}, expected.observer());
      std::stop_source stop;
      Control control{stop.get_token(), {}, [&](const Progress& p) {
                        if (p.block == 1 && !p.linear.empty()) stop.request_stop();
                      }};
      QVERIFY_EXCEPTION_THROWN(run_engine(cut, control, before.observer()), Cancelled);
      QCOMPARE(before.blocks, (std::vector<int>{0}));
      QCOMPARE(finished_blocks(cut), 1);
      const std::string first = read_text(block_path(cut.folder, 0));
      run_engine(cut, {}, after.observer());
      QCOMPARE(after.blocks, (std::vector<int>{1, 2}));
      QCOMPARE(read_text(block_path(cut.folder, 0)), first);
      QVERIFY(block_files(cut.folder) == block_files(whole.folder));
      for (int b = 1; b < 3; ++b) {
        QVERIFY(at::equal(after.quantized_outputs[b - 1], expected.quantized_outputs[b]));
        QVERIFY(at::equal(after.float_outputs[b - 1], expected.float_outputs[b]));
      }
      QVERIFY(only_blocks_and_state(cut.folder));
    }
  }

  void a_killed_run_resumes_to_the_same_bytes_and_no_block_goes_unseen() {
    const EngineJob whole = tiny_job(model_, fresh("unkilled")), killed = tiny_job(model_, fresh("killed"));
    Seen expected, after;
    run_engine(whole, {}, expected.observer());
    QProcess child;
    child.start(QCoreApplication::applicationFilePath(), {"--run-and-be-killed", QString::fromStdString(model_.string()), QString::fromStdString(killed.folder.string())});
    QVERIFY(child.waitForFinished(60'000));
    QCOMPARE(child.exitStatus(), QProcess::CrashExit);
    // Block 1 lies there whole, but nobody was told: it is made again and shown.
    QVERIFY(fs::exists(block_path(killed.folder, 1)));
    QCOMPARE(finished_blocks(killed), 1);
    run_engine(killed, {}, after.observer());
    QCOMPARE(after.blocks, (std::vector<int>{1, 2}));
    QVERIFY(block_files(killed.folder) == block_files(whole.folder));
    QVERIFY(at::equal(after.quantized_outputs[1], expected.quantized_outputs[2]));
  }

  void a_stop_is_seen_within_a_linear_while_calibrating() {
    // Stop at any of the many checkpoints: none is ignored, and the next start finds a sound folder.
    EngineJob job = tiny_job(model_, fresh("stops"));
    for (int at = 0; at < 30; at += 7) {
      std::stop_source stop;
      int count = 0;
      Control control{stop.get_token(), {}, [&](const Progress&) {
                        if (count++ == at) stop.request_stop();
                      }};
      try {
        run_engine(job, control, {});
      } catch (const Cancelled&) {
      }
      QVERIFY(count <= at + 2);  // at most one more report after the stop
    }
    run_engine(job, {}, {});
    QCOMPARE(finished_blocks(job), 3);
  }

  void a_finished_run_has_nothing_to_do() {
    const EngineJob job = tiny_job(model_, fresh("done"));
    run_engine(job, {}, {});
    const auto before = block_files(job.folder);
    Seen seen;
    run_engine(job, {}, seen.observer());
    QVERIFY(seen.blocks.empty());
    QVERIFY(block_files(job.folder) == before);
  }

  void another_fingerprint_is_refused_and_the_difference_named() {
    EngineJob job = tiny_job(model_, fresh("other"));
    run_engine(job, {}, {});
    const auto before = block_files(job.folder);
    job.fingerprint["calibration"] = "c2";
    const std::string text = message_of<InputError>([&] { run_engine(job, {}, {}); });
    QVERIFY2(holds(text, "calibration") && holds(text, "c1") && holds(text, "c2") && holds(text, job.folder.string()), text.c_str());
    QVERIFY(block_files(job.folder) == before);
    std::ofstream(job.folder / "state.json") << "{\"fingerprint\": 3}";
    QVERIFY(holds(message_of<InputError>([&] { run_engine(job, {}, {}); }), "state.json"));
  }

  // One is left behind by a run that was killed before anything else said whose folder it is.
  void a_plan_of_another_recipe_is_made_anew() {
    EngineJob job = tiny_job(model_, fresh("plan"));
    job.pipeline = {{"shortgpt", {{"n_prune_layers", int64_t{1}}}}, {"rtn", {}}};
    job.fingerprint = {{"recipe", "a"}};
    const auto blocks = static_cast<int64_t>(job.model->info.blocks.size());
    const fs::path plan = plan_path(job.folder, 0, "shortgpt");
    fs::create_directories(job.folder);
    write_atomically(plan, "0\n{\"recipe\":\"b\"}");
    QCOMPARE(changed_model(job, {})->architecture.blocks, blocks - 1);
    const std::string made = read_text(plan);
    QVERIFY(made.ends_with("{\"recipe\":\"a\"}"));
    QCOMPARE(changed_model(job, {})->architecture.blocks, blocks - 1);
    QCOMPARE(read_text(plan), made);
    // Its own is kept, an older version's too, and a finished run is opened whatever it is called.
    for (const char* kept : {"0\n{\"recipe\":\"a\"}", "0"}) {
      write_atomically(plan, kept);
      QCOMPARE(changed_model(job, {})->architecture.blocks, int64_t{1});
    }
    write_atomically(plan, "0\n{\"recipe\":\"b\"}");
    job.fingerprint.clear();
    job.calibration = {};
    QCOMPARE(changed_model(job, {})->architecture.blocks, int64_t{1});
  }

  void a_misfit_is_refused_before_any_file_is_written() {
    EngineJob job = tiny_job(model_, fresh("misfit"));
    job.scheme.weights->group_size = 64;  // 64 divides hidden 64 but not intermediate 96
    const std::string text = message_of<InputError>([&] { run_engine(job, {}, {}); });
    QVERIFY2(holds(text, "model.layers.0.mlp.down_proj") && holds(text, "96") && holds(text, "48") && holds(text, "32"), text.c_str());
    QVERIFY(!fs::exists(job.folder));
    job = tiny_job(model_, fresh("misfit"));
    job.scheme.activations->granularity = Granularity::group;
    job.scheme.activations->group_size = 40;
    QVERIFY(holds(message_of<InputError>([&] { run_engine(job, {}, {}); }), "activations"));
    QVERIFY(!fs::exists(job.folder));
  }

  // Lists that llm-compressor, GPTQModel, AutoAWQ and AutoRound are given for models with experts, images and sound.
  void lists_of_peers_are_accepted_and_typos_are_not() {
    const EngineJob job = tiny_job(model_, fresh("peers"));
    auto refusal = [&](const std::vector<std::string>& ignore) {
      Scheme scheme = job.scheme;
      scheme.ignore = ignore;
      return message_of<Error>([&] { require_matches(scheme, *job.model); });
    };
    for (const char* pattern : {"lm_head", "re:.*lm_head", "re:.*router.*", "re:.*mlp.gate$", "re:.*block_sparse_moe.gate", "re:.*mlp.shared_expert_gate$", "re:vision_tower.*", "re:.*vision.*", "re:visual.*",
                                "re:model.visual.*", "model.visual*", "visual", "vision_tower", "multi_modal_projector", "re:multi_modal_projector.*", "re:.*audio_tower.*", "re:mtp.*", "mlp.gate", "*.mlp.gate",
                                "model.embed_tokens", "re:.*embed_tokens", "*norm", "model.layers.2.mlp.gate", "model.norm.weight", "*.input_layernorm", "re:.*layers[.]1[.]mlp[.]gate$"})
      QVERIFY2(holds(refusal({pattern, "*.down_proj"}), "(no error)"), refusal({pattern}).c_str());
    QVERIFY(other_part("*.mlp.gate", *job.model) == "routers of experts" && other_part("re:vision_tower.*", *job.model) == "parts for images and sound");
    QCOMPARE(QString::fromStdString(other_part("*.gate_proj", *job.model)), QString());
    QCOMPARE(QString::fromStdString(other_part("*.q_proj.weight", *job.model)), QString());
    Scheme scheme = job.scheme;
    scheme.ignore = {"lm_head", "*.down_proj", "re:.*router.*"};
    const std::vector<std::string> notes = ignore_notes(scheme, *job.model);
    QCOMPARE(notes.size(), size_t{1});
    QVERIFY(holds(notes[0], "\"re:.*router.*\" names routers of experts"));
    scheme.head = scheme.weights;  // says more of the head than a list that all recipes have
    QCOMPARE(ignore_notes(scheme, *job.model).size(), size_t{2});
    QVERIFY(holds(ignore_notes(scheme, *job.model)[0], "\"lm_head\" names heads and embeddings, of which scheme.head speaks"));
    // What matches nothing at all, with the nearest names.
    QVERIFY(holds(refusal({"*.down_prj"}), "did you mean down_proj"));
    QVERIFY(holds(refusal({"lm_haed"}), "lm_head"));
    QVERIFY(holds(refusal({"re:.*routr.*"}), "router"));
    QVERIFY(holds(refusal({"vision_towr"}), "vision_tower"));
    QVERIFY(holds(refusal({"model.layers.7.mlp.gate"}), "matches no linear and no other part"));
    QVERIFY(holds(refusal({"*.q_proj.weight"}), "q_proj"));
    // A name that other programs take for a part of one, and that means linears.
    QVERIFY(holds(refusal({"mlp.down_proj"}), "did you mean \"*mlp.down_proj\"?"));
    QVERIFY(holds(refusal({"self_attn"}), "did you mean \"*self_attn*\"?"));
    QVERIFY(holds(refusal({"re:.*mlp"}), "did you mean \"re:.*mlp.*\"?"));
    // An override that names no linear has no effect that anyone can want.
    scheme = job.scheme;
    scheme.overrides = {{"re:.*router.*", std::nullopt}};
    QVERIFY(holds(message_of<Error>([&] { require_matches(scheme, *job.model); }), "matches no linear;"));
  }

  void preflight_refuses_what_would_fail_later() {
    auto refusal = [&](const std::function<void(EngineJob&)>& change) {
      EngineJob job = tiny_job(model_, fresh("refused"));
      change(job);
      return message_of<Error>([&] { preflight(job); });
    };
    QVERIFY(holds(refusal([](EngineJob& j) { j.scheme.ignore = {"lm_head", "*nowhere*"}; }), "*nowhere*"));
    QVERIFY(holds(refusal([](EngineJob& j) { j.scheme.ignore = {"lm_head"}; }), "(no error)"));
    QVERIFY(holds(refusal([](EngineJob& j) { j.scheme.overrides = {{"down_proj", std::nullopt}}; }), "\"*down_proj\""));
    QVERIFY(holds(refusal([](EngineJob& j) { j.scheme.ignore = {"*"}; }), "no linear is left"));
    QVERIFY(holds(refusal([](EngineJob& j) { j.pipeline = {{"rtm", {}}}; }), "rtn"));
    QVERIFY(holds(refusal([](EngineJob& j) { j.calibration = tiny_tokens(1, 65); }), "64"));
    QVERIFY(holds(refusal([](EngineJob& j) { j.device = at::Device(at::kCUDA, 7); }), "cuda:7"));
    QVERIFY(!fs::exists(fresh("refused")));
    QVERIFY(estimate(tiny_job(model_, fresh("refused"))).disk_bytes > 3 * 28672 * 3 / 8);
  }

  void a_nan_weight_is_refused_naming_the_tensor() {
    const std::string bad = "model.layers.2.self_attn.k_proj.weight";
    const fs::path model = write_tiny_llama(root_ / "nan", {}, [&](const std::string& name, at::Tensor& t) {
      if (name == bad) t[1][2] = std::numeric_limits<float>::quiet_NaN();
    });
    EngineJob job = tiny_job(model, fresh("nan-run"));
    job.calibration = {};
    const std::string text = message_of<InputError>([&] { run_engine(job, {}, {}); });
    QVERIFY2(holds(text, bad) && holds(text, "NaN"), text.c_str());
  }

  void a_full_disk_is_a_resource_error_and_leaves_a_resumable_folder() {
    const EngineJob whole = tiny_job(model_, fresh("roomy"));
    run_engine(whole, {}, {});
    EngineJob job = tiny_job(model_, fresh("full"));
    // A limit on file sizes fails writes as a full disk does.
    rlimit old{};
    ::getrlimit(RLIMIT_FSIZE, &old);
    rlimit small = old;
    small.rlim_cur = 4096;
    std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
    const std::string text = message_of<ResourceError>([&] { run_engine(job, {}, {}); });
    ::setrlimit(RLIMIT_FSIZE, &old);
    QVERIFY2(holds(text, "block-0000.safetensors"), text.c_str());
    QVERIFY(!fs::exists(job.folder / "state.json"));
    QVERIFY(block_files(job.folder).empty());
    run_engine(job, {}, {});
    QVERIFY(block_files(job.folder) == block_files(whole.folder));
  }

  void hidden_states_on_disk_give_the_same_bytes() {
    EngineJob job = tiny_job(model_, fresh("spilled"));
    job.resident_bytes = 0;
    Seen spilled, resident;
    run_engine(job, {}, spilled.observer());
    run_engine(tiny_job(model_, fresh("resident")), {}, resident.observer());
    QVERIFY(at::equal(spilled.quantized_outputs[2], resident.quantized_outputs[2]));
    QVERIFY(only_blocks_and_state(job.folder));
  }

  void what_blocks_hand_on_beside_hidden_states_is_spilled_and_found_again() {
    const fs::path model = write_tiny_gemma3n(root_ / "gemma3n");
    auto job = [&](const char* name) {
      EngineJob made = tiny_job(model, fresh(name));
      made.pipeline = {{"gptq", {}}};
      return made;
    };
    EngineJob whole = job("streams"), cut = job("streams-cut");
    cut.resident_bytes = 0;
    Seen expected, after;
    run_engine(whole, {}, expected.observer());
    std::stop_source stop;
    const Control control{stop.get_token(), {}, [&](const Progress& p) {
                            if (p.block == 1 && !p.linear.empty()) stop.request_stop();
                          }};
    QVERIFY_EXCEPTION_THROWN(run_engine(cut, control, {}), Cancelled);
    run_engine(cut, {}, after.observer());
    QCOMPARE(after.blocks, (std::vector<int>{1, 2}));
    QVERIFY(block_files(cut.folder) == block_files(whole.folder));
    QVERIFY(only_blocks_and_state(cut.folder));
    for (int b = 1; b < 3; ++b) {
      QVERIFY(at::equal(after.quantized_outputs[b - 1], expected.quantized_outputs[b]));
      QVERIFY(at::equal(after.float_outputs[b - 1], expected.float_outputs[b]));
    }
    // What is measured are the four streams, and each block's are those of the model that runs whole.
    const TokenSet& tokens = whole.calibration;
    at::Tensor ids = at::empty({2, 24}, at::kLong);
    for (int64_t s = 0; s < 2; ++s)
      for (int64_t i = 0; i < 24; ++i) ids[s][i] = tokens.samples[static_cast<size_t>(s)][static_cast<size_t>(i)];
    Decoder decoder(whole.model, quantized_source(whole.model, whole.folder), at::kFloat);
    const LinearTap tap = activation_tap(whole.scheme);
    at::Tensor q = decoder.embed(ids);
    QVERIFY(q.size(2) > 4 * 64);
    for (int b = 0; b < 3; ++b) {
      const at::Tensor entered = q, before = q.clone();
      q = decoder.forward(decoder.load_block(b), entered, {.at_linear = tap});
      QVERIFY(at::equal(entered, before));  // nothing is computed in the caller's memory
      QCOMPARE(expected.quantized_outputs[b].size(1), int64_t{4 * 64});
      QVERIFY(at::allclose(expected.quantized_outputs[b], decoder.hidden_part(q).reshape({48, -1}), 1e-4, 1e-4));
    }
  }

  void kept_linears_are_float_and_overrides_hold() {
    EngineJob job = tiny_job(model_, fresh("mixed"));
    job.scheme.ignore = {"*.0.mlp.down_proj"};
    QuantSpec eight = *job.scheme.weights;
    eight.type.bits = 8;
    job.scheme.overrides = {{"*v_proj", eight}};
    run_engine(job, {}, {});
    const auto source = quantized_source(job.model, job.folder);
    const std::string kept = "model.layers.0.mlp.down_proj.weight", finer = "model.layers.1.self_attn.v_proj.weight";
    QVERIFY(at::equal(source->read(kept), job.model->source->read(kept)));
    QVERIFY(at::equal(source->read(finer), quantize(job.model->source->read(finer), eight).dequantize()));
  }

  void progress_tells_where_the_run_is() {
    EngineJob job = tiny_job(model_, fresh("progress"));
    std::vector<Progress> all;
    run_engine(job, Control{{}, {}, [&](const Progress& p) { all.push_back(p); }}, {});
    std::set<std::string> linears;
    double last = 0;
    for (const Progress& p : all) {
      QVERIFY(p.fraction >= last - 1e-9 && p.fraction <= 1);
      last = p.fraction;
      QCOMPARE(p.blocks, 3);
      QVERIFY(p.rss_bytes > 0 && p.peak_rss_bytes >= p.rss_bytes);
      if (p.stage == "rtn") linears.insert(p.linear);
    }
    QCOMPARE(linears.size(), size_t{7});
    QVERIFY(last > 0.9);
    QVERIFY(all.back().eta_s >= 0);
  }

  void a_damaged_block_is_an_error_that_names_it() {
    EngineJob job = tiny_job(model_, fresh("damaged"));
    run_engine(job, {}, {});
    const fs::path file = block_path(job.folder, 1);
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    const auto stored = open_safetensors(file);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const TensorInfo& info : stored->tensors()) tensors.emplace_back(info.name, stored->read(info.name).clone());
    auto metadata = read_safetensors_metadata(file);
    metadata.erase("checksums");  // what is wrong in the writing, not on the disk
    auto damaged = [&](const std::string& tensor, const at::Tensor& replacement) {
      auto changed = tensors;
      for (auto& [n, t] : changed)
        if (n == tensor) t = replacement;
      write_safetensors(file, changed, metadata);
      return message_of<InputError>([&] { quantized_source(job.model, job.folder)->read(name); });
    };
    QVERIFY(holds(damaged(name + ".scale", at::zeros({3, 3})), file.string()));
    QVERIFY(holds(damaged(name + ".codes", at::zeros({5}, at::kByte)), name));
    auto described = [&](const std::string& from, const std::string& to) {
      auto changed = metadata;
      std::string& text = changed["qbench"];
      const auto at = text.find(from, text.find(name));
      if (at == std::string::npos) return "not found: " + from;
      text.replace(at, from.size(), to);
      write_safetensors(file, tensors, changed);
      return message_of<InputError>([&] { quantized_source(job.model, job.folder)->read(name); });
    };
    QVERIFY(holds(described("\"int3\"", "\"int99\""), name));
    QVERIFY(holds(described("\"symmetric\":true", "\"symmetric\":false"), "zero_point"));
    QVERIFY(holds(described("\"scale_type\"", "\"scale_kind\""), "scale_type"));
    QVERIFY(holds(described("\"group_size\":32", "\"group_size\":-3"), "group_size"));
    write_safetensors(file, tensors, {{"qbench", "{\"schema\":5,\"linears\":{}}"}});
    QVERIFY(holds(message_of<InputError>([&] { quantized_source(job.model, job.folder); }), "schema 5"));
    write_safetensors(file, tensors, metadata);
    fs::resize_file(file, fs::file_size(file) / 2);
    QVERIFY(holds(message_of<InputError>([&] { quantized_source(job.model, job.folder); }), file.string()));
  }

  void a_flipped_bit_is_noticed_on_reading_and_on_resume() {
    EngineJob job = tiny_job(model_, fresh("flipped"));
    job.propagate_quantized = false;
    run_engine(job, {}, {});
    const fs::path file = block_path(job.folder, 1);
    const std::string sound = read_text(file);
    auto read_all = [&] {
      const QuantizedModel quantized = quantized_model(job.model, job.folder);
      for (const QuantizedLinear& linear : quantized.linears) {
        quantized.read(linear);
        quantized.read_transformed(linear);
      }
      for (const TensorInfo& info : quantized.changed->tensors()) quantized.changed->read(info.name);
    };
    read_all();
    QCOMPARE(QString::fromStdString(damage_of_blocks(job.folder)), QString());
    // All over the file: header, description, codes, scales, the last byte.
    const size_t step = sound.size() / 97;
    for (size_t at = 0; at < sound.size() + step; at += step) {
      std::string flipped = sound;
      flipped[std::min(at, sound.size() - 1)] ^= static_cast<char>(1 << (at % 8));
      write_atomically(file, flipped);
      const std::string on_reading = message_of<InputError>(read_all);
      QVERIFY2(holds(on_reading, file.string()), (std::to_string(at) + ": " + on_reading).c_str());
      QVERIFY(holds(damage_of_blocks(job.folder), file.string()));
      int from = -1;
      std::string told;
      QCOMPARE(finished_blocks(job, [&](int block, const std::string& damage) {
        from = block;
        told = damage;
      }), 1);
      QVERIFY(from == 1 && holds(told, file.string()));
    }
    std::vector<int> again;
    run_engine(job, {}, [&](const BlockView& view) { again.push_back(static_cast<int>(view.work.block.index)); });
    QCOMPARE(again, (std::vector<int>{1, 2}));
    QVERIFY(read_text(file) == sound);
  }

  void a_refused_weight_is_named_with_its_linear() {
    const fs::path folder = write_tiny_llama(root_ / "large", {}, [](const std::string& name, at::Tensor& t) {
      if (holds(name, "layers.1.mlp.up_proj")) t[3][5] = 1e9;
    });
    EngineJob job = tiny_job(folder, fresh("large-run"));
    job.scheme.weights->scale_type = ScaleType::f16;
    const std::string message = message_of<InputError>([&] { run_engine(job, {}, {}); });
    QVERIFY2(holds(message, "block 1, mlp.up_proj") && holds(message, "float16"), message.c_str());
  }

  void a_block_stands_for_itself() {
    EngineJob job = tiny_job(model_, fresh("itself"));
    job.scheme.weights->scale_type = ScaleType::bf16;
    job.scheme.activations = QuantSpec{.type = {NumberType::Kind::integer, 8}, .granularity = Granularity::token};
    job.scheme.ignore = {"*.v_proj"};
    run_engine(job, {}, {});
    const QuantizedModel quantized = quantized_model(job.model, job.folder);
    QCOMPARE(quantized.linears.size(), size_t{18});
    const auto linears = linears_by_weight(quantized);
    QVERIFY(!linears.contains("model.layers.0.self_attn.v_proj.weight"));
    const QuantizedLinear* linear = linears.at("model.layers.1.mlp.up_proj.weight");
    QVERIFY(linear);
    QVERIFY(linear->weights == meaning_of(*job.scheme.weights));
    QVERIFY(linear->activations == meaning_of(*job.scheme.activations));
    const QuantizedWeight direct = quantize(job.model->source->read(linear->module + ".weight"), *job.scheme.weights);
    QCOMPARE(QString::fromStdString(difference(quantized.read(*linear), direct)), QString());
    QVERIFY(at::equal(quantized.read_grid(*linear).scale, direct.grid.scale));
    QuantizedWeight other = direct;
    other.codes = direct.codes.clone();
    other.codes[0][0] += 1;
    QVERIFY(difference(other, direct).starts_with("1 of "));
  }

  void nvfp4s_factor_is_one_where_engines_join_linears_and_values_stay() {
    const fs::path folder = write_tiny_llama(root_ / "factors", {}, [](const std::string& name, at::Tensor& t) {
      if (!holds(name, "k_proj")) return;
      t.mul_(1.0 / 40);
      t[3].slice(0, 16, 32).mul_(1e-5);  // a group near the end of e4m3 under its own factor, beyond it under the others'
    });
    EngineJob job = tiny_job(folder, fresh("factors-run"));
    job.scheme.weights = spec_of(Storage::nvfp4);
    job.scheme.activations.reset();
    run_engine(job, {}, {});
    const QuantizedModel quantized = quantized_model(job.model, job.folder);
    for (int b = 0; b < 3; ++b) {
      const std::string prefix = "model.layers." + std::to_string(b) + ".";
      auto factor = [&](const char* name) { return quantized.read_grid(*linear_of(quantized, prefix + name)).super.item<float>(); };
      QCOMPARE(factor("self_attn.k_proj"), factor("self_attn.q_proj"));
      QCOMPARE(factor("self_attn.v_proj"), factor("self_attn.q_proj"));
      QCOMPARE(factor("mlp.gate_proj"), factor("mlp.up_proj"));
      for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj"}) {
        const at::Tensor w = job.model->source->read(prefix + name + ".weight");
        const QuantizedWeight stored = quantized.read(*linear_of(quantized, prefix + name)), own = quantize(w, spec_of(Storage::nvfp4));
        at::Tensor apart = (stored.dequantize() - own.dequantize()).abs();
        if (std::string(name) == "self_attn.k_proj") {
          QVERIFY(own.grid.super.item<float>() < stored.grid.super.item<float>());
          QVERIFY(apart[3].slice(0, 16, 32).max().item<double>() <= 6 * stored.grid.super.item<double>() / 512);
          apart[3].slice(0, 16, 32).zero_();
        }
        QCOMPARE(apart.max().item<float>(), 0.0f);
        const at::Tensor local = stored.grid.scale / stored.grid.super;
        QVERIFY(at::equal(local, local.to(at::kFloat8_e4m3fn).to(at::kFloat)));
      }
    }
  }

  void static_inputs_have_one_grid_where_they_share_a_value_and_none_is_lost() {
    EngineJob job = tiny_job(model_, fresh("static"));
    job.scheme.activations = static_inputs("int8", false);
    Seen seen;
    run_engine(job, {}, seen.observer());
    const QuantizedModel quantized = quantized_model(job.model, job.folder);
    auto grid = [&](const char* name) { return linear_of(quantized, std::string("model.layers.1.") + name)->input_grid; };
    QVERIFY(grid("self_attn.q_proj") && grid("self_attn.q_proj") == grid("self_attn.k_proj") && grid("self_attn.q_proj") == grid("self_attn.v_proj"));
    QVERIFY(grid("mlp.gate_proj") == grid("mlp.up_proj") && !(grid("mlp.up_proj") == grid("mlp.down_proj")) && !(grid("mlp.up_proj") == grid("self_attn.q_proj")));
    // The stored model computes what the run measured.
    at::Tensor ids = at::empty({2, 24}, at::kLong);
    for (int64_t s = 0; s < 2; ++s)
      for (int64_t i = 0; i < 24; ++i) ids[s][i] = job.calibration.samples[s][i];
    Decoder decoder(job.model, dequantized(quantized), at::kFloat);
    const LinearTap tap = activation_tap(quantized);
    at::Tensor q = decoder.embed(ids);
    for (int b = 0; b < 3; ++b) {
      q = decoder.forward(decoder.load_block(b), q, {.at_linear = tap});
      QVERIFY(at::allclose(seen.quantized_outputs[b], q.reshape({48, -1}), 1e-4, 1e-4));
    }
    QVERIFY_THROWS_EXCEPTION(InternalError, activation_tap(job.scheme));
    // What describes them is checked like all else.
    const fs::path file = block_path(job.folder, 1);
    const auto stored = open_safetensors(file);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const TensorInfo& info : stored->tensors()) tensors.emplace_back(info.name, stored->read(info.name).clone());
    const std::string described = read_safetensors_metadata(file).at("qbench");
    QVERIFY(holds(described, "\"schema\":3"));
    auto damaged = [&](const std::string& key, const nlohmann::json& value) {
      auto json = nlohmann::json::parse(described);
      auto& linear = json["linears"]["model.layers.1.mlp.up_proj.weight"];
      if (value.is_null()) linear.erase(key); else if (key == "dynamic") linear["activations"][key] = value; else linear["input"][key] = value;
      write_safetensors(file, tensors, {{"qbench", json.dump()}});
      return message_of<InputError>([&] { quantized_model(job.model, job.folder); });
    };
    for (const auto& [key, value] : std::vector<std::pair<std::string, nlohmann::json>>{
             {"input", nullptr}, {"scale", 0}, {"scale", -1.5}, {"scale", "1"}, {"zero_point", 0.5}, {"zero_point", 300}, {"dynamic", true}}) {
      const std::string said = damaged(key, value);
      QVERIFY2(holds(said, "model.layers.1.mlp.up_proj") && holds(said, "input"), (key + ": " + said).c_str());
    }
  }

  void static_inputs_that_are_zero_or_have_a_dead_channel_have_a_grid() {
    const fs::path folder = write_tiny_llama(root_ / "zero", {}, [](const std::string& name, at::Tensor& t) {
      if (name == "model.layers.1.self_attn.v_proj.weight") t.zero_();
      if (name == "model.layers.2.input_layernorm.weight") t[5] = 0;
    });
    EngineJob job = tiny_job(folder, fresh("zero-run"));
    job.scheme.weights->type.bits = 8;
    job.scheme.activations = static_inputs("int8", false);
    std::map<std::string, std::string> notes;
    run_engine(job, {}, [&](const BlockView& view) {
      for (const LinearWork& linear : view.work.linears)
        if (!linear.note.empty()) notes[linear.module] = linear.note;
      QVERIFY(view.quantized_output.isfinite().all().item<bool>());
    });
    const QuantizedModel quantized = quantized_model(job.model, job.folder);
    QCOMPARE(*linear_of(quantized, "model.layers.1.self_attn.o_proj")->input_grid, (InputGrid{1, -128}));
    QCOMPARE(notes.size(), size_t{1});
    QVERIFY(holds(notes["model.layers.1.self_attn.o_proj"], "zero for every calibration token"));
    const InputGrid dead = *linear_of(quantized, "model.layers.2.self_attn.q_proj")->input_grid;
    QVERIFY(dead.scale > 0.001 && dead.scale < 0.2);
  }

  void static_inputs_of_an_expert_that_no_token_reaches_have_the_range_of_its_likes() {
    const fs::path folder = write_tiny(root_ / "experts", {{"architectures", {"MixtralForCausalLM"}}, {"model_type", "mixtral"}, {"hidden_size", 64}, {"intermediate_size", 64},
                                                           {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"num_hidden_layers", 2}, {"vocab_size", 96}, {"num_local_experts", 16},
                                                           {"num_experts_per_tok", 2}, {"rms_norm_eps", 1e-5}, {"rope_theta", 10000.0}, {"max_position_embeddings", 64}, {"hidden_act", "silu"},
                                                           {"tie_word_embeddings", false}});
    EngineJob job = tiny_job(folder, fresh("experts-run"));
    job.calibration = tiny_tokens(1, 4);
    job.scheme.activations = static_inputs("e4m3", true);
    std::set<std::string> unreached;
    run_engine(job, {}, [&](const BlockView& view) {
      for (const LinearWork& linear : view.work.linears)
        if (holds(linear.note, "the range of all its likes")) unreached.insert(linear.module);
    });
    QVERIFY(unreached.size() >= 2 * 3 * 8);  // four tokens reach at most eight of sixteen
    std::map<std::string, float> largest;    // of the reached ones, by block and role
    auto role = [](const std::string& module) { return module.substr(0, 15) + module.substr(module.rfind('.')); };
    const QuantizedModel quantized = quantized_model(job.model, job.folder);
    for (const QuantizedLinear& linear : quantized.linears)
      if (holds(linear.module, "experts") && !unreached.contains(linear.module)) largest[role(linear.module)] = std::max(largest[role(linear.module)], linear.input_grid->scale);
    for (const std::string& module : unreached) QCOMPARE(linear_of(quantized, module)->input_grid->scale, largest.at(role(module)));
  }

  void static_inputs_need_text_and_codes() {
    EngineJob job = tiny_job(model_, fresh("static-refused"));
    job.scheme.activations = static_inputs("e4m3", true);
    job.calibration = {};
    QVERIFY(holds(message_of<InputError>([&] { run_engine(job, {}, {}); }), "calibration text"));
    job = tiny_job(model_, fresh("static-refused"));
    job.scheme.activations = static_inputs("e4m3", true);
    job.scheme.weights.reset();
    QVERIFY(holds(message_of<InputError>([&] { run_engine(job, {}, {}); }), "quantize the weights too"));
    QVERIFY(!fs::exists(job.folder));
  }

  void blocks_of_the_first_schema_stay_readable() {
    EngineJob job = tiny_job(model_, fresh("older"));
    run_engine(job, {}, {});
    const fs::path file = block_path(job.folder, 0);
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    const at::Tensor expected = quantized_source(job.model, job.folder)->read(name).clone();
    const auto stored = open_safetensors(file);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    const QuantSpec& spec = *job.scheme.weights;
    for (const TensorInfo& info : stored->tensors()) {
      tensors.emplace_back(info.name, stored->read(info.name).clone());
      if (!info.name.ends_with(".codes")) continue;
      const std::string weight = info.name.substr(0, info.name.size() - 6);
      const auto shape = job.model->source->find(weight)->shape;
      // kind, bits, exponent and mantissa bits, granularity (group), group size, block rows and columns, heads, out, in
      tensors.emplace_back(weight + ".layout", at::tensor({int64_t{0}, int64_t{3}, int64_t{0}, int64_t{0}, int64_t{2}, spec.group_size, int64_t{128}, int64_t{128}, int64_t{0}, shape[0], shape[1]}, at::kLong));
    }
    write_safetensors(file, tensors);
    QVERIFY(at::equal(quantized_source(job.model, job.folder)->read(name), expected));
    const QuantizedModel quantized = quantized_model(job.model, job.folder, &job.scheme);
    QVERIFY(linears_by_weight(quantized).at("model.layers.0.mlp.up_proj.weight")->weights == meaning_of(spec));
    for (auto& [n, t] : tensors)
      if (n == name + ".layout") t = at::full({11}, -1, at::kLong);
    write_safetensors(file, tensors);
    QVERIFY(holds(message_of<InputError>([&] { quantized_source(job.model, job.folder); }), name));
  }

  void memory_does_not_grow_with_the_number_of_blocks() {
    // 16 blocks of 2.4 MB as float32: holding on to those after the fifth would take 26 MB and more.
    const fs::path model = write_tiny_llama(root_ / "deep", {.hidden = 256, .inner = 512, .blocks = 16});
    EngineJob job = tiny_job(model, fresh("deep-run"));
    int64_t early = 0, late = 0;
    run_engine(job, {}, [&](const BlockView& view) {
      if (view.work.block.index == 4) early = anonymous_bytes();
      if (view.work.block.index == 15) late = anonymous_bytes();
    });
    QVERIFY2(late - early < (13 << 20), qPrintable(QString("%1 MB more").arg((late - early) >> 20)));
  }
};

int main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "--run-and-be-killed") run_and_be_killed(argv[2], argv[3]);
  QCoreApplication app(argc, argv);
  TestEngine test;
  return QTest::qExec(&test, argc, argv);
}
#include "test_engine.moc"
