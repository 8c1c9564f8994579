// A long run with frequent saves, evaluations, best files and rotation, in ten parts: nothing the
// process holds and nothing it writes grows with the run's length. By design the log file does, by
// a line where one is due; what else would is bounded by an option, which this run sets.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "millrace/hooks/checkpoint_report_hook.h"
#include "millrace/hooks/default_hooks.h"
#include "millrace/hooks/timeline_hook.h"
#include "millrace/hooks/trace_hook.h"
#include "millrace/io/catalog.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/support/fake_run.h"
#include "tests/support/process_usage.h"
#include "tests/support/stress.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

constexpr std::int64_t kParts = 10;
constexpr std::int64_t kSaveEvery = 50, kValidateEvery = 25;
constexpr std::size_t kMaxSpans = 500;  // of the trace

// A metric that gets better at every third validation: at every sixth on a step that is saved.
class Improving final : public Metric {
 public:
  void reset() override {}
  void process(const TensorView&, const Batch&) override {}
  std::vector<MetricValue> compute() override {
    ++validations_;
    return {{"score", static_cast<double>(validations_ % 3 == 0 ? validations_ : 0)}};
  }
  std::vector<std::string> names() const override { return {"score"}; }

 private:
  std::int64_t validations_ = 0;
};

// What is on the disk between two parts of the run.
struct Footprint {
  std::uint64_t trace = 0, timeline = 0, catalog = 0, checkpoint = 0, hub_record = 0, log = 0;
  std::size_t files = 0;

  std::string text() const {
    const auto kib = [](std::uint64_t bytes) { return std::to_string(bytes / 1024) + " KiB"; };
    return std::to_string(files) + " files, catalog " + kib(catalog) + ", checkpoint " +
           kib(checkpoint) + ", hub record " + kib(hub_record) + ", trace " + kib(trace) +
           ", timeline " + kib(timeline) + ", log " + kib(log);
  }
};

class Soak {
 public:
  Soak() : run_(dir_.path() / "run", {.floats = 2000}) {
    run_.options.max_iters = iters_;
    run_.options.val_interval = kValidateEvery;
    run_.options.scalar_history = 20;
    run_.options.log_sink = [](LogLevel, std::string_view) {};
    run_.parts.val = loader(test::fake_dataset(4), {.batch_size = 2});
    run_.parts.metrics.push_back(std::make_unique<Improving>());
    run_.parts.hooks = default_hooks({.checkpoint = {.interval = kSaveEvery,
                                                     .by_epoch = false,
                                                     .save_best = {"score"},
                                                     .rule = {"greater"},
                                                     .keep_best = 2,
                                                     .max_keep_ckpts = 3}});
    run_.parts.hooks.add(std::make_unique<TraceHook>("trace.json", kMaxSpans));
    run_.parts.hooks.add(std::make_unique<TimelineHook>("timeline.html", kMaxSpans));
    run_.parts.hooks.add(std::make_unique<CheckpointReportHook>(10));
    run_.parts.hooks.add(std::make_unique<test::TestHook>(
        [this](Subscriptions& on, RunContext&) { subscribe(on); }, "Parts", Priority::kHighest));
  }

  void train() {
    for (std::int64_t part = 1; part <= kParts; ++part) {
      run_.train();
      usage_.push_back(test::process_usage());
      footprints_.push_back(footprint());
    }
  }

  std::int64_t iters() const { return iters_; }
  std::int64_t trained() { return run_.runner().progress().iter; }
  const std::vector<test::ProcessUsage>& usage() const { return usage_; }
  const std::vector<test::ProcessUsage>& usage_inside() const { return usage_inside_; }
  const std::vector<Footprint>& footprints() const { return footprints_; }
  std::uint64_t committed() const { return committed_; }
  std::uint64_t links() const { return links_; }
  std::uint64_t removed() const { return removed_; }
  std::uint64_t validations() const { return validations_; }

 private:
  void subscribe(Subscriptions& on) {
    on.every<AfterTrainIter>([this](const AfterTrainIter& e) {
      const std::int64_t done = e.at.iter + 1;
      if (done % kSaveEvery == kSaveEvery / 2) usage_inside_.push_back(test::process_usage());
      // Not where a validation is due: the stop would come before it.
      if (done % (iters_ / kParts) == 1 && done > 1) run_.runner().request_stop("part");
    });
    on.every<AfterVal>([this](const AfterVal&) { ++validations_; });
    on.every<CheckpointCommitted>(
        [this](const CheckpointCommitted& e) { ++(e.row.mode == "link" ? links_ : committed_); });
    on.every<CheckpointRemoved>([this](const CheckpointRemoved&) { ++removed_; });
  }

  Footprint footprint() const {
    namespace fs = std::filesystem;
    const fs::path& folder = run_.options.work_dir;
    const LocalStorage storage(folder);
    Footprint found;
    for (const ObjectInfo& object : storage.list()) {
      ++found.files;
      if (!object.name.starts_with("iter_")) continue;
      found.checkpoint = object.size;
      found.hub_record = CheckpointFile::read(storage, object.name).section("hub")->size();
    }
    found.trace = fs::file_size(folder / "trace.json");
    found.timeline = fs::file_size(folder / "timeline.html");
    found.catalog = fs::file_size(folder / Catalog::kName);
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.path().extension() == ".log") found.log += entry.file_size();
    }
    return found;
  }

  test::TempDir dir_;
  const std::int64_t iters_ =
      static_cast<std::int64_t>(test::stress_count(20'000, 100'000)) / 500 * 500;
  std::vector<test::ProcessUsage> usage_, usage_inside_;
  std::vector<Footprint> footprints_;
  std::uint64_t committed_ = 0, links_ = 0, removed_ = 0, validations_ = 0;
  test::FakeRun run_;
};

// Equal but for the digits of larger numbers.
void expect_near(std::uint64_t first, std::uint64_t last, std::uint64_t slack, const char* what) {
  EXPECT_LE(last, first + slack) << what;
}

TEST(Soak, NothingGrows) {
  Soak soak;
  soak.train();
  ASSERT_EQ(soak.trained(), soak.iters());
  const auto iters = static_cast<std::uint64_t>(soak.iters());
  const std::uint64_t validations = iters / kValidateEvery;
  EXPECT_EQ(soak.validations(), validations);
  // The first two validations fill the list of best files, each as the later ones do.
  EXPECT_EQ(soak.links(), 1 + validations / 6) << "best files on steps that are saved";
  const std::uint64_t best = 1 + validations / 3 - validations / 6;
  EXPECT_EQ(soak.committed(), iters / kSaveEvery + kParts - 1 + best) << "with those of the stops";
  EXPECT_EQ(test::growth(soak.usage()), "") << "between the parts";
  EXPECT_EQ(test::growth(soak.usage_inside(), test::kDuringSaves), "") << "inside the run";

  const Footprint& first = soak.footprints()[3];
  const Footprint& last = soak.footprints().back();
  EXPECT_EQ(last.files, first.files);
  EXPECT_EQ(last.hub_record, first.hub_record);
  expect_near(first.checkpoint, last.checkpoint, 512, "checkpoint");
  expect_near(first.trace, last.trace, kMaxSpans * 16, "trace");
  expect_near(first.timeline, last.timeline, kMaxSpans * 16, "timeline");
  for (const Footprint& each : soak.footprints()) {
    EXPECT_LE(each.catalog, 80u << 10) << "the catalog is written anew at 64 KiB";
  }
  test::stress_report("soak: " + std::to_string(iters) + " iterations, " +
                      std::to_string(soak.committed()) + " saves, " + std::to_string(soak.links()) +
                      " links, " + std::to_string(soak.removed()) + " removals, " +
                      std::to_string(soak.validations()) + " validations; " +
                      test::usage_text(soak.usage().back()) + "; " + last.text());
}

}  // namespace
}  // namespace millrace
