// Where clipping cut, read from a run's files, beside the same worked out weight by weight.
#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/run/clip_ranges.h"
#include "core/run/run.h"
#include "core/run/run_export.h"

namespace fs = std::filesystem;

class TestClipRanges : public QObject {
  Q_OBJECT
  QTemporaryDir place_;
  std::shared_ptr<qb::Workspace> workspace_;

  fs::path run(const std::vector<qb::StageSpec>& pipeline, bool symmetric) {
    qb::Recipe recipe = qb::load_recipe(fs::path(QBENCH_SOURCE_DIR "/resources/demo/recipes/w4.yaml"));
    recipe.calibration->sampling.samples = 2;
    recipe.calibration->sampling.seq_len = 64;
    recipe.evaluation.clear();
    recipe.scheme.weights->symmetric = symmetric;
    recipe.scheme.ignore = {"*.3.mlp.down_proj"};
    recipe.pipeline = pipeline;
    const std::string id = workspace_->create_run(recipe);
    qb::carry_out(*workspace_, id, {}, {});
    return workspace_->run_folder(id);
  }

 private Q_SLOTS:
  void initTestCase() { workspace_ = qb::Workspace::open(place_.path().toStdString()); }

  void ends_and_what_lies_beyond_are_those_of_each_group() {
    const std::string module = "model.layers.1.mlp.up_proj";
    for (const bool symmetric : {false, true}) {
      const fs::path clipped = run({{"clip", {}}, {"rtn", {}}}, symmetric);
      const qb::ClipRanges found = qb::clip_ranges(clipped, module);
      QVERIFY(found.beyond > 0 && found.cut > 0 && found.cut <= found.units);

      const qb::FinishedRun opened = qb::open_run(clipped);
      const auto it = std::find_if(opened.model.linears.begin(), opened.model.linears.end(), [&](const auto& l) { return l.module == module; });
      const at::Tensor weight = opened.model.read_transformed(*it).to(at::kDouble).contiguous(), scale = opened.model.read_grid(*it).scale.to(at::kDouble).contiguous();
      const at::Tensor zeros = symmetric ? at::zeros_like(scale) : opened.model.read_grid(*it).zero.to(at::kDouble).contiguous();
      std::vector<double> lows, highs;
      int64_t beyond = 0;
      for (int64_t row = 0; row < weight.size(0); ++row)
        for (int64_t g = 0; g < weight.size(1) / 64; ++g) {
          const double s = scale[row][g].item<double>(), z = zeros[row][g].item<double>(), low = (-8 - z) * s, high = (7 - z) * s;
          lows.push_back(low);
          highs.push_back(high);
          for (int64_t c = 0; c < 64; ++c) {
            const double w = weight[row][g * 64 + c].item<double>();
            beyond += w < low - 0.51 * s || w > high + 0.51 * s;
          }
        }
      QCOMPARE(found.units, int64_t(lows.size()));
      std::sort(lows.begin(), lows.end());
      std::sort(highs.begin(), highs.end());
      for (size_t i = 0; i < found.low.size(); ++i) {
        const auto at = size_t(std::llround(qb::ClipRanges::kShares[i] * double(lows.size() - 1)));
        QVERIFY(std::abs(found.low[i] - lows[at]) < 1e-6 && std::abs(found.high[i] - highs[at]) < 1e-6);
      }
      QVERIFY(std::abs(found.beyond * double(weight.numel()) - double(beyond)) <= 1);  // float32 beside float64
    }
  }

  void rounding_alone_clips_nothing_and_what_is_not_in_codes_is_named() {
    const fs::path plain = run({{"rtn", {}}}, false);
    const qb::ClipRanges none = qb::clip_ranges(plain, "model.layers.1.mlp.up_proj");
    QCOMPARE(none.beyond, 0.0);
    QCOMPARE(none.cut, int64_t(0));
    for (const char* module : {"model.layers.3.mlp.down_proj", "model.layers.99.mlp.up_proj"}) try {
        qb::clip_ranges(plain, module);
        QFAIL(module);
      } catch (const qb::InputError& error) {
        QVERIFY(std::string(error.what()).find(module) != std::string::npos);
      }
  }
};

QTEST_GUILESS_MAIN(TestClipRanges)
#include "test_clip_ranges.moc"
