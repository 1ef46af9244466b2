// Waiting for another thread that is expected within microseconds.
#pragma once

#include <thread>

#include "system.h"

namespace clipq {

constexpr int SPINS = 4000;  // some 50 us; then the core is left to whom the others may be waiting for

template <class Done>
void spin_until(const Done& done) {
    for (int spins = 0; !done(); spins++) {
        if (spins < SPINS)
            pause_briefly();
        else
            std::this_thread::yield();
    }
}

}  // namespace clipq
