// Waiting for another thread that is expected within microseconds.
#pragma once

#include <thread>

#include "system.h"

namespace clipq {

// Some 5 us; then the core is left to whom the others may be waiting for. With ten times as many, a ViT-B/32 on two
// threads took 1.5 times as long on a machine whose cores others were using as well: a thread that spins uses up its
// turn, and then it is the one that the others wait for.
constexpr int SPINS = 400;

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
