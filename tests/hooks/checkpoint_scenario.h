// What the tables of CheckpointHook's semantics are made of: a row says how runs are set up, a
// Folder is the work dir in which they follow each other, and what is found afterwards is text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "millrace/hooks/checkpoint_options.h"
#include "millrace/io/pickle_value.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {

// "2.4.3", "an interval of 2": Tables/Table.Test/2_4_3_an_interval_of_2.
struct RowName {
  const char* section;
  const char* what;
};
std::string test_name(const RowName& name);
void PrintTo(const RowName& name, std::ostream* out);
struct NameOfRow {
  template <class ParamInfo>
  std::string operator()(const ParamInfo& row) const {
    return test_name(row.param.name);
  }
};

struct Scenario {
  CheckpointHookOptions hook = {};
  std::int64_t epochs = 3;  // of 4 iterations; 0: counts iterations
  std::int64_t iters = 0;
  // Metric and what the validations give, also over several runs in one folder. None: no
  // validation.
  std::vector<std::pair<std::string, std::vector<double>>> scores = {};
  std::int64_t val_begin = 1;
  std::int64_t val_interval = 1;
  std::int64_t stop_after = 0;  // this many finished iterations
};

class Folder {
 public:
  // Of a folder of its own, so that out_dir can be beside it.
  std::filesystem::path root() const { return dir_.path(); }
  std::filesystem::path work_dir() const { return dir_.path() / "run"; }

  std::unique_ptr<FakeRun> make(const Scenario& scenario, Resume resume = {});
  // The run after it has ended; what it threw is in error().
  std::unique_ptr<FakeRun> train(const Scenario& scenario, Resume resume = {});
  const std::string& error() const { return error_; }

  // Checkpoints in `directory` (default: the work dir), digests of published files as HASH.
  std::vector<std::string> files(const std::filesystem::path& directory = {}) const;
  // last_checkpoint as it is, and without its folder.
  std::string pointer_text() const;
  std::string pointer() const;
  // A file by its name, published ones with HASH.
  CheckpointFile read(const std::string& file) const;
  // "epoch 3 iter 12: meta message_hub optimizer state_dict"
  std::string content(const std::string& file) const;
  std::string hub_in(const std::string& file) const;
  // A checkpoint as MMEngine leaves it, below root(): nothing of ours, these hub entries, and in a
  // best file the weights only.
  void write_foreign(const std::filesystem::path& file, std::int64_t epoch, std::int64_t iter,
                     const pickle::Value& runtime_info) const;

 private:
  TempDir dir_;
  std::string error_;
  std::size_t validations_ = 0;
};

// CheckpointHook's entries of a message hub's Python state, paths without folders:
// "best_ckpt=best_acc_epoch_2.pth best_score=0.5000 keep_ckpt_ids=[2,3] last_ckpt=epoch_3.pth".
std::string hub_text(const pickle::Value& python_state);

}  // namespace millrace::test
