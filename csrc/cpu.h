#pragma once

namespace clipq {

// Whether this processor, and the operating system's saving of its registers, allow `path` (an enum clipq_path).
bool cpu_supports(int path);

}  // namespace clipq
