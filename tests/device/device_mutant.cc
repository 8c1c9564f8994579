// device_mutant <part of a failure> <filter>: tests of the fake CUDA in a program of which one
// source is a mutant (cmake/millrace_mutant.cmake). Succeeds when a test fails with that text.
#include <gtest/gtest.h>

#include <cstdio>
#include <string_view>

namespace {

class Watch final : public testing::EmptyTestEventListener {
 public:
  explicit Watch(std::string_view text) : text_(text) {}
  void OnTestPartResult(const testing::TestPartResult& result) override {
    found_ |=
        result.failed() && std::string_view(result.message()).find(text_) != std::string_view::npos;
  }
  bool found() const { return found_; }

 private:
  std::string_view text_;
  bool found_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 3) {
    std::fprintf(stderr, "usage: device_mutant <part of a failure> <filter>\n");
    return 2;
  }
  auto* const watch = new Watch(argv[1]);
  testing::UnitTest::GetInstance()->listeners().Append(watch);  // which owns it
  testing::GTEST_FLAG(filter) = argv[2];
  const bool failed = RUN_ALL_TESTS() != 0;
  return failed && watch->found() ? 0 : 1;
}
