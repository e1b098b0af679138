// What a launch is given, and which of its items, and what part of it, a work-group works on.

/// What every kernel is given, as `Raw` in `driver.rs` lays it out.
struct Arguments {
    /// The array that holds everything.
    float *heap;
    /// The links of all wirings.
    const u32 *links;
    /// The samples of a window's minibatches.
    const u32 *places;
    /// The words of all items, of which those of this launch begin at `first_word`.
    const u32 *table;
    /// The minibatch of the window.
    u32 *step;
    u32 first_word;
    /// What the kernel is to do beside what its name says: bits of [`Do`].
    u32 variant;
};

/// Bits of a variant, as `variant` in `programs.rs` sets them.
enum Do : u32 {
    NORMALISED = 1,
    BIASED = 2,
    LOCAL = 4,
    LAST = 8,
    FIRST = 16,
    /// What is read is cut.
    CUT_IN = 32,
    /// What the next product reads is cut.
    CUT_OUT = 64,
    /// What is cut has two parts.
    TWO_PARTS = 128,
    /// Pre-activations are not wanted.
    NO_Z = 256,
    /// What is cut lies in blocks; z too, where a product makes or reads it.
    IN_BLOCKS = 512,
    /// z lies in blocks, where a signal lands that no product makes.
    Z_IN_BLOCKS = 1024,
    /// Blocks are of eight channels.
    IN_EIGHTS = 2048,
};

/// What stands for a panel, source or tap that is not there.
constexpr u32 NONE = 0xffffffffu;
/// Threads of a work-group.
constexpr u32 THREADS = 256;
/// Threads that multiply together.
constexpr u32 LANES = 32;
constexpr u32 WARPS = THREADS / LANES;
/// Rows and columns that elementwise kernels cut panels into.
constexpr u32 SIDE = 16;
/// Work-groups along the first dimension before a second one is used.
constexpr u32 ROW = 32768;
/// Rows and columns of one instruction's sums.
constexpr u32 ROWS = 16;
constexpr u32 COLUMNS = 8;
/// Channels of a block, where arrays lie in blocks that are shuffled, and in those of few.
constexpr u32 BLOCK = 64;
constexpr u32 EIGHT = 8;

/// The number of a work-group among those of its item.
DEVICE u32 group() { return block_x() + block_y() * ROW; }

/// The value of an item that a thread works on.
DEVICE u32 place() { return group() * THREADS + thread(); }

/// The words of a work-group's item.
DEVICE const u32 *item(const Arguments &given, u32 words) {
    return given.table + given.first_word + (u64)block_z() * words;
}

/// A product over a wiring's links.
struct Walk {
    const float *weight;
    const float *input;
    /// `locations + 1` starts, then (tap, source) of each link.
    const u32 *links;
    /// Rows of a panel.
    u32 batch;
    /// Channels of a source panel.
    u32 channels;
    /// Channels of a destination panel.
    u32 columns;
    /// Locations that have a list of links.
    u32 locations;
    /// Factor on the sums.
    float scale;
    /// Values of the source panels, and matrices of the weights.
    u32 values, taps;
};

constexpr u32 WALK_WORDS = 10;

DEVICE Walk read_walk(const Arguments &given, const u32 *words) {
    Walk walk;
    walk.weight = given.heap + words[0];
    walk.input = given.heap + words[1];
    walk.links = given.links + words[2];
    walk.batch = words[3];
    walk.channels = words[4];
    walk.columns = words[5];
    walk.locations = words[6];
    walk.scale = as_float(words[7]);
    walk.values = words[8];
    walk.taps = words[9];
    return walk;
}

/// What a work-group makes: a panel's rows and columns from the first ones on.
struct Place {
    u32 location;
    u32 first_row;
    u32 first_column;
};

/// The place of a work-group by its number: panels fastest, then columns, then rows.
DEVICE Place place_of(u32 group, const Walk &walk, u32 rows, u32 columns) {
    u32 across = (walk.columns + columns - 1) / columns;
    u32 column = group / walk.locations;
    Place place;
    place.location = group % walk.locations;
    place.first_row = column / across * rows;
    place.first_column = column % across * columns;
    return place;
}

DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
