// States of hooks and objects on their way through checkpoints, from run to run.
#include "millrace/runtime/engine/state_sections.h"

#include <gmock/gmock.h>

#include <cereal/types/memory.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>

#include "millrace/events/checkpoint_events.h"
#include "millrace/events/hook_error.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/local_storage.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_content.h"
#include "millrace/runtime/engine/hook_state.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

template <std::uint32_t kVersion>
class Steps final : public StatefulHook<Steps<kVersion>> {
 public:
  static constexpr std::uint32_t kStateVersion = kVersion;
  explicit Steps(std::string name = "Steps") : name_(std::move(name)) {}
  std::string_view name() const override { return name_; }
  void subscribe(Subscriptions& on) override {
    on.every<AfterTrainIter>([this](const AfterTrainIter&) { ++count; });
  }
  template <class Archive>
  void serialize(Archive& archive, std::uint32_t) {
    archive(count);
  }
  std::int64_t count = 0;

 private:
  std::string name_;
};

struct StateSections : ::testing::Test {
  StateSections() : work_dir(dir.path() / "run") {}

  // A run up to `epochs`, a file each, resumed where there is one.
  std::unique_ptr<test::FakeRun> make_run(std::int64_t epochs) {
    auto run = std::make_unique<test::FakeRun>(work_dir);
    run->options.max_epochs = epochs;
    run->options.resume = Resume::automatic();
    run->parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
    return run;
  }
  std::map<std::string, std::string> sections(std::int64_t epoch) {
    LocalStorage storage(work_dir);
    const std::string name = "epoch_" + std::to_string(epoch) + ".pth";
    return CheckpointFile::read(storage, name).record()->sections;
  }
  static std::string error_of(test::FakeRun& run) {
    try {
      run.train();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  }

  test::TempDir dir;
  std::filesystem::path work_dir;
};

TEST_F(StateSections, HooksAndObjectsComeBack) {
  std::vector<std::string> notes;
  const auto note = [&notes](test::FakeRun& run) {
    run.parts.states.add("notes", saved_state(notes));
    run.parts.hooks.add(test::on_event<AfterTrainEpoch>([&](const AfterTrainEpoch& e, RunContext&) {
      notes.push_back("epoch " + std::to_string(e.at.epoch + 1));
    }));
  };
  const auto first = make_run(1);
  note(*first);
  first->parts.hooks.add(std::make_unique<Steps<1>>());
  first->train();
  notes = {"not in the file"};
  const auto second = make_run(2);
  note(*second);
  auto& steps = static_cast<Steps<1>&>(second->parts.hooks.add(std::make_unique<Steps<1>>()));
  second->train();
  EXPECT_EQ(steps.count, 8);
  // TestHook runs after CheckpointHook, so that the file of epoch 1 was captured before the note.
  EXPECT_THAT(notes, ::testing::ElementsAre("epoch 2"));
  EXPECT_EQ(second->runner().states().entries().size(), 1u);
}

TEST_F(StateSections, WhatARunLacksIsReportedKeptAndThereAgain) {
  std::int64_t total = 5;
  const auto first = make_run(1);
  first->parts.hooks.add(std::make_unique<Steps<1>>());
  first->parts.states.add("total", saved_state(total));
  first->train();
  const auto before = sections(1);

  const auto without = make_run(3);
  without->parts.hooks.add(std::make_unique<Steps<1>>("Step"));
  std::int64_t other = 0;
  without->parts.states.add("totals", saved_state(other));
  without->train();
  EXPECT_THAT(without->log->with("a state of the hook 'Steps', which this run lacks (it has 'Step'"
                                 "): it is kept in this run's checkpoints as it is"),
              SizeIs(1));
  EXPECT_THAT(without->log->with("the object 'total', which this run lacks (it has 'totals')"),
              SizeIs(1));
  for (const std::int64_t epoch : {2, 3}) {
    const auto after = sections(epoch);
    EXPECT_EQ(after.at("hook/Steps"), before.at("hook/Steps"));
    EXPECT_EQ(after.at("object/total"), before.at("object/total"));
    EXPECT_EQ(after.count("hook/Step"), 1u);
  }

  total = 0;
  const auto again = make_run(4);
  auto& steps = static_cast<Steps<1>&>(again->parts.hooks.add(std::make_unique<Steps<1>>()));
  again->parts.states.add("total", saved_state(total));
  again->train();
  EXPECT_EQ(steps.count, 4 + 4) << "where the first run left it, and the last epoch";
  EXPECT_EQ(total, 5);
  EXPECT_THAT(again->log->with("a state of the hook 'Step', which this run lacks (it has 'Steps')"),
              SizeIs(1));
}

TEST_F(StateSections, ANewerVersionEndsTheResumeAndLosesNothing) {
  const auto first = make_run(1);
  first->parts.hooks.add(std::make_unique<Steps<3>>());
  first->train();
  const auto older = make_run(2);
  older->parts.hooks.add(std::make_unique<Steps<2>>());
  EXPECT_THAT(error_of(*older),
              AllOf(HasSubstr("epoch_1.pth"), HasSubstr("'hook/Steps'"),
                    HasSubstr("the hook 'Steps' has version 3, and this program knows versions up "
                              "to 2")));
  const auto without = make_run(2);
  without->train();
  EXPECT_EQ(sections(2).at("hook/Steps"), sections(1).at("hook/Steps"));
}

class Unsavable final : public Hook {
 public:
  std::string_view name() const override { return "Unsavable"; }
  void subscribe(Subscriptions&) override {}
  std::string save_state() const override { throw Error("no memory"); }
};

TEST_F(StateSections, AHookThatCannotSaveEndsTheRunByName) {
  const auto run = make_run(1);
  run->parts.hooks.add(std::make_unique<Unsavable>());
  EXPECT_EQ(error_of(*run),
            "after_train_epoch in CheckpointHook > save_state in Unsavable: no "
            "memory");
}

TEST_F(StateSections, AnIsolatedOneIsCountedAndTheCheckpointIsWithoutIt) {
  const auto run = make_run(2);
  run->parts.hooks.add(std::make_unique<Unsavable>(), {.isolation = Isolation::disable_after()});
  run->train();
  EXPECT_EQ(run->runner().hook_errors().at(0).errors, 2u);
  EXPECT_EQ(sections(2).count("hook/Unsavable"), 0u);
}

// A state that is refused ends the resume also for an isolated hook: the next save would replace
// it.
TEST_F(StateSections, AnIsolatedHooksRefusalEndsTheResume) {
  const auto first = make_run(1);
  first->parts.hooks.add(std::make_unique<Steps<3>>());
  first->train();
  const auto older = make_run(2);
  older->parts.hooks.add(std::make_unique<Steps<2>>(), {.isolation = Isolation::disable_after()});
  EXPECT_THAT(error_of(*older), HasSubstr("has version 3"));
}

TEST_F(StateSections, AnObjectThatCannotBeSavedIsNamed) {
  const auto object = std::make_shared<std::int64_t>(1);
  struct Twice {
    std::shared_ptr<std::int64_t> a, b;
    void save(StateWriter& out) const { out(a, b); }
    void load(StateReader& in) { in(a, b); }
  } twice{object, object};
  const auto run = make_run(1);
  run->parts.states.add("twice", saved_state(twice));
  EXPECT_THAT(error_of(*run), HasSubstr("the state of the object 'twice' cannot be saved: two "
                                        "shared pointers"));
}

TEST_F(StateSections, SectionsOfOthersAreSaidAndNotCarriedOn) {
  const auto first = make_run(1);
  first->parts.hooks.add(test::on_event<BeforeSaveCheckpoint>(
      [](const BeforeSaveCheckpoint& e, RunContext&) { e.content.sections()["weather"] = "?"; }));
  first->train();
  const auto second = make_run(2);
  second->train();
  EXPECT_THAT(second->log->with("'weather' is none that resume reads"), SizeIs(1));
  EXPECT_EQ(sections(2).count("weather"), 0u);
  EXPECT_THAT(second->runner().states().kept(), IsEmpty());
}

}  // namespace
}  // namespace millrace
