#include "millrace/runtime/engine/hook.h"

#include <gmock/gmock.h>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

class Named final : public Hook {
 public:
  explicit Named(std::string name, Priority priority = Priority::kNormal)
      : name_(std::move(name)), priority_(priority) {}
  std::string_view name() const override { return name_; }
  Priority priority() const override { return priority_; }
  void subscribe(Subscriptions&) override {}

 private:
  std::string name_;
  Priority priority_;
};

std::vector<std::string> names(const HookList& hooks) {
  std::vector<std::string> names;
  for (const auto& entry : hooks.entries()) names.emplace_back(entry.hook->name());
  return names;
}

TEST(HookList, OrderIsPriorityThenRegistration) {
  HookList hooks;
  hooks.add(std::make_unique<Named>("c"));
  hooks.add(std::make_unique<Named>("d"));
  hooks.add(std::make_unique<Named>("z", Priority::kLowest));
  hooks.add(std::make_unique<Named>("a", Priority::kVeryHigh));
  hooks.add(std::make_unique<Named>("b", Priority::kLowest), Priority::kHigh);
  hooks.add(std::make_unique<Named>("e"), 51);
  EXPECT_THAT(names(hooks), ::testing::ElementsAre("a", "b", "c", "d", "e", "z"));
  EXPECT_EQ(hooks.table(),
            "Hooks will be executed in the following order:\n(VERY_HIGH   ) a\n(HIGH        ) b\n"
            "(NORMAL      ) c\n(NORMAL      ) d\n(51          ) e\n(LOWEST      ) z");
}

TEST(HookList, FindAndRemoveByName) {
  HookList hooks;
  Hook& added = hooks.add(std::make_unique<Named>("a"));
  EXPECT_EQ(hooks.find("a"), &added);
  EXPECT_EQ(hooks.find("b"), nullptr);
  EXPECT_FALSE(hooks.remove("b"));
  EXPECT_TRUE(hooks.remove("a"));
  EXPECT_TRUE(hooks.entries().empty());
  hooks.add(std::make_unique<Named>("a"));
}

TEST(HookList, OptionsOverrideTheHooksOwn) {
  HookList hooks;
  hooks.add(std::make_unique<Named>("a"), {.isolation = Isolation::disable_after(2)});
  hooks.add(std::make_unique<Named>("b"), {.priority = Priority::kHighest});
  EXPECT_THAT(names(hooks), ::testing::ElementsAre("b", "a"));
  ASSERT_EQ(hooks.errors().size(), 1u);
  EXPECT_EQ(hooks.errors()[0].hook, "a");
  EXPECT_THROW(hooks.add(std::make_unique<Named>("c"), {.isolation = Isolation::disable_after(-2)}),
               ConfigError);
  EXPECT_EQ(hooks.find("c"), nullptr);
}

TEST(HookList, RefusesATakenNameAndLateHooks) {
  HookList hooks;
  hooks.add(std::make_unique<Named>("a"));
  try {
    hooks.add(std::make_unique<Named>("a"));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.key(), "hooks.a");
  }
  hooks.close();
  try {
    hooks.add(std::make_unique<Named>("b"));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("after training started"));
  }
  EXPECT_EQ(hooks.entries().size(), 1u);
}

}  // namespace
}  // namespace millrace
