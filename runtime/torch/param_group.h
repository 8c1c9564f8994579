// The hyper-parameters of an optimizer as a param_groups entry of Python has them.
//
// One table says each entry's name, its place and the variable that holds it; group entries are
// written from it and read into it. The variables belong to the optimizer and outlive the table.
#pragma once

#include <array>
#include <string_view>
#include <variant>
#include <vector>

#include "millrace/io/pickle_value.h"

namespace millrace {

class ParamGroup {
 public:
  ParamGroup() = default;
  ParamGroup(const ParamGroup&) = delete;  // points into its optimizer
  ParamGroup& operator=(const ParamGroup&) = delete;

  // In Python's order. `name` is a literal.
  ParamGroup& number(std::string_view name, double& value);
  ParamGroup& pair(std::string_view name, double& first, double& second);
  ParamGroup& flag(std::string_view name, bool& value);
  // Written for Python; what a file says there is not taken over.
  ParamGroup& fixed(std::string_view name, pickle::Value value);

  // The dict without "params".
  pickle::Value save() const;
  // Takes over what has the right type; what is missing stays as it is.
  void load(const pickle::Value& group);

 private:
  struct Entry {
    std::string_view name;
    std::variant<double*, std::array<double*, 2>, bool*, pickle::Value> place;
  };
  std::vector<Entry> entries_;
};

}  // namespace millrace
