// main.cpp: cprof in a C++ program: a profile that lasts as long as an object, names of templates and
// lambdas, threads, and a scope that ends with its block even if an exception leaves it.
//
//     c++ -std=c++11 -O1 -g -pthread -I. examples/cpp/main.cpp examples/cpp/cprof.cpp -o inventory
//     ./inventory
//     python3 tools/flamegraph.py inventory.folded -o inventory.svg

#include "cprof.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace inventory {

// Profiles from its making to its end.
class Profile {
  public:
    explicit Profile(const char *path) { CPROF_BEGIN(path); }
    ~Profile() { CPROF_END(); }
    Profile(const Profile &) = delete;
    Profile &operator=(const Profile &) = delete;
};

template <typename T> struct Item {
    T key;
    std::uint32_t count;
};

// One function for each type it is made for, and each has its own box.
template <typename T> void order(std::vector<Item<T>> &items) {
    std::sort(items.begin(), items.end(), [](const Item<T> &a, const Item<T> &b) {
        return a.count != b.count ? a.count < b.count : a.key < b.key;
    });
}

std::uint32_t next(std::uint32_t &state) { return state = state * 1664525u + 1013904223u; }

// Throws when an item is out of stock, from below the scope that is open in take_all.
void take(std::map<std::string, std::uint32_t> &stock, const std::string &name) {
    std::uint32_t &left = stock[name];
    if (left == 0) throw std::runtime_error(name);
    left--;
}

std::uint32_t take_all(std::uint32_t state) {
    std::map<std::string, std::uint32_t> stock;
    std::uint32_t missing = 0;
    for (int i = 0; i < 100; i++) stock["item " + std::to_string(i)] = 50;
    for (int i = 0; i < 10000; i++) {
        try {
            cprof_scope_guard scope(cprof_scope_begin("order"));
            const std::uint32_t item = next(state) >> 16;
            if (item % 4 == 0) scope.set("order of many");
            for (std::uint32_t n = item % 4 == 0 ? 5 : 1; n > 0; n--)
                take(stock, "item " + std::to_string((item + n) % 100));
        } catch (const std::runtime_error &) {
            missing++;
        }
    }
    return missing;
}

template <typename T> void sorter(const char *name, int rounds, T (*make)(std::uint32_t)) {
    CPROF_THREAD_NAME(name);
    std::uint32_t state = 1;
    for (int round = 0; round < rounds; round++) {
        std::vector<Item<T>> items;
        for (int i = 0; i < 20000; i++) items.push_back({make(next(state)), next(state) >> 28});
        order(items);
    }
}

} // namespace inventory

int main() {
    inventory::Profile profile("inventory.folded");
    std::thread numbers([] {
        inventory::sorter<std::uint64_t>("numbers", 150, [](std::uint32_t n) -> std::uint64_t { return n; });
    });
    std::thread strings([] {
        inventory::sorter<std::string>("strings", 25, [](std::uint32_t n) { return std::to_string(n); });
    });
    std::uint32_t missing = 0;
    for (std::uint32_t day = 1; day <= 20; day++) missing += inventory::take_all(day);
    numbers.join();
    strings.join();
    std::printf("out of stock: %u\n", static_cast<unsigned>(missing));
    return 0;
}
