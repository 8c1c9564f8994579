// Whole .pth files in memory: the pieces of PthLayout put together.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/io/pickle_value.h"
#include "millrace/io/pth_layout.h"
#include "millrace/io/pth_reader.h"
#include "tests/io/support/memory_object.h"

namespace millrace::test {

std::vector<std::byte> bytes_of(std::string_view text);

// The file of a tree; storage i of the file is storages[i].
std::vector<std::byte> make_file(const pickle::Value& root,
                                 const std::vector<std::vector<std::byte>>& storages,
                                 const std::vector<PthLayout::NamedBytes>& extra = {});
// The same around a pickle that is given as bytes.
std::vector<std::byte> make_file_of_pickle(const std::vector<std::byte>& data_pkl,
                                           const std::vector<std::vector<std::byte>>& storages,
                                           const std::vector<PthLayout::NamedBytes>& extra = {});

// Everything a file says: the pickle of its tree and the bytes of every storage, or the fault.
Result<std::vector<std::byte>> read_content(std::vector<std::byte> file, PthLimits limits = {});

// Two tensors over two storages, an OrderedDict with _metadata, numbers and text, and a state
// entry.
std::vector<std::byte> small_file();

}  // namespace millrace::test
