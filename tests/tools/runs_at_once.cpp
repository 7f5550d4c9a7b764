// Carries a recipe out several times at once in one process, a thread each, as the window's queue does:
//   runs_at_once WORKSPACE RECIPE RUNS
// Prints JSON: for each run its perplexities; while all were at work, the threads that they had together.
#include <ATen/Parallel.h>

#include <barrier>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "core/engine/device.h"
#include "core/engine/thread_share.h"
#include "core/run/run.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "runs_at_once WORKSPACE RECIPE RUNS\n";
    return 2;
  }
  try {
    qb::initialise_compute();
    const auto workspace = qb::Workspace::open(argv[1]);
    const qb::Recipe recipe = qb::load_recipe(argv[2]);
    const int runs = std::stoi(argv[3]);
    std::vector<std::string> ids;
    for (int i = 0; i < runs; ++i) ids.push_back(workspace->create_run(recipe));
    std::barrier at_work(runs), measured(runs);
    std::vector<int> teams(static_cast<size_t>(runs));
    nlohmann::json told(static_cast<size_t>(runs), nlohmann::json::object());
    {
      std::vector<std::jthread> threads;
      for (size_t i = 0; i < ids.size(); ++i)
        threads.emplace_back([&, i] {
          try {
            bool first = true;
            qb::Control control;
            // Every run is at work when the first report of each has come; its second comes when it has taken up its share.
            control.on_progress = [&](const qb::Progress& p) {
              if (std::exchange(first, false)) {
                at_work.arrive_and_wait();
              } else if (p.phase == "quantize" && teams[i] == 0) {
                teams[i] = at::get_num_threads();
                measured.arrive_and_wait();  // nobody ends before
              }
            };
            const qb::RunReport report = qb::carry_out(*workspace, ids[i], {}, control);
            for (const auto& p : report.perplexities) told[i]["perplexities"].push_back(p.perplexity);
          } catch (const std::exception& e) {
            std::cerr << e.what() << std::endl;
            std::_Exit(1);  // the others would wait for it
          }
        });
    }
    const nlohmann::json together = {{"runs", runs}, {"threads", std::accumulate(teams.begin(), teams.end(), 0)}};
    std::cout << nlohmann::json{{"compute_threads", qb::compute_threads()}, {"runs", told}, {"together", together}} << '\n';
  } catch (const std::exception& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
