#include "millrace/io/object_image.h"

namespace millrace {

CommitTimes copy_object(const Storage& from, std::string_view name, Storage& to,
                        std::string_view new_name) {
  const std::unique_ptr<StoredObject> object = from.open(name);
  ObjectImage image(*object);
  return to.commit(new_name, image);
}

}  // namespace millrace
