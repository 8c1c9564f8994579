#include "millrace/runtime/engine/run_states.h"

#include <gtest/gtest.h>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

class Nothing final : public SavedState {
 public:
  std::string save() const override { return {}; }
  void load(std::string_view, std::string_view) override {}
};

std::string refused(RunStates& states, std::string name) {
  try {
    states.add(std::move(name), std::make_unique<Nothing>());
    return "no error";
  } catch (const ConfigError& error) {
    return error.key();
  }
}

TEST(RunStates, NamesAreUniqueAndFixedOnceTrainingStarts) {
  RunStates states;
  auto first = std::make_unique<Nothing>();
  const SavedState* added = first.get();
  states.add("a", std::move(first));
  EXPECT_EQ(states.find("a"), added);
  EXPECT_EQ(states.find("b"), nullptr);
  EXPECT_EQ(refused(states, "a"), "states.a");
  EXPECT_EQ(refused(states, ""), "states");
  states.close();
  EXPECT_EQ(refused(states, "b"), "states.b");
  EXPECT_EQ(states.entries().size(), 1u);
}

}  // namespace
}  // namespace millrace
