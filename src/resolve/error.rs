//! Diagnostic codes of the resolver.

crate::codes! {
    /// A recipe declares models, data, prompts and stages: `model NAME = …`, `data NAME = …`, `prompt NAME { … }`,
    /// `stage NAME = …`. Another word cannot stand there.
    UNKNOWN_DECLARATION = "resolve::unknown_declaration";
    /// Two declarations (or a declaration and a `let`, also across imported files) have one name, so a reference to it
    /// would be ambiguous. Rename one of them.
    DUPLICATE_NAME = "resolve::duplicate_name";
    /// The name in front of the braces is not in the registry that the place asks for. `peftc list` prints what there is.
    UNKNOWN_ENTRY = "resolve::unknown_entry";
    /// The block has no such key. Keys are never ignored: a misspelt one would silently leave a default in force.
    /// `peftc explain NAME` prints the keys of a block.
    UNKNOWN_KEY = "resolve::unknown_key";
    /// A key stands twice in one block; only one value can hold. Remove one of the lines.
    DUPLICATE_KEY = "resolve::duplicate_key";
    /// A key without a default is not written. `peftc explain NAME` says what it means.
    MISSING_KEY = "resolve::missing_key";
    /// The value is of another kind than the key takes: a string where a number is wanted, and so on.
    WRONG_TYPE = "resolve::wrong_type";
    /// The number carries a unit that the key does not take. Sizes take `KiB`, `MiB`, `GiB` (1024) or `KB`, `MB`, `GB`
    /// (1000); parts take `%` or `steps`; lengths take `epochs` or `steps`.
    WRONG_UNIT = "resolve::wrong_unit";
    /// The number is outside the bounds of its key; `peftc explain NAME` prints them.
    OUT_OF_BOUNDS = "resolve::out_of_bounds";
    /// The value is not one of the names that the key takes. The help lists the nearest, or all of them; `peftc explain`
    /// prints what a block's keys take.
    UNKNOWN_CHOICE = "resolve::unknown_choice";
    /// A name is used that nothing declares. Declarations may stand in any order and in imported files.
    DANGLING_NAME = "resolve::dangling_name";
    /// A name is declared, but as something else than the key wants: a model where a stage is wanted, for example.
    WRONG_REFERENCE = "resolve::wrong_reference";
    /// Data are used by split: `reviews.train`, `reviews.dev`, `reviews.test`. Say which.
    MISSING_SPLIT = "resolve::missing_split";
    /// Two keys say different things about one quantity, or exactly one of several keys has to be written.
    CONFLICT = "resolve::conflict";
    /// The path names no role. Roles are `attention.{query, key, value, output}`, `ffn.{up, down}` and so on, optionally
    /// within `layers[a..b].`; a string is matched against module paths of the checkpoint.
    UNKNOWN_ROLE = "resolve::unknown_role";
    /// The recipe that the command names cannot be read: there is no such file, it is no plain file or no text, or it is
    /// far larger than recipes are. Check the path.
    UNREADABLE_RECIPE = "resolve::unreadable_recipe";
    /// An imported file cannot be read, or files import each other in a circle.
    BAD_IMPORT = "resolve::bad_import";
    /// `--set NAME=VALUE` overrides a `let` of the recipe, and the recipe has none of that name.
    UNKNOWN_VARIABLE = "resolve::unknown_variable";
    /// A `let` refers to itself, directly or through others, so it has no value. Give one of them a value of its own.
    CYCLIC_LET = "resolve::cyclic_let";
    /// Each key of a sweep names a `let` of the recipe, whose value it replaces. There is none of that name: declare it, and
    /// use it where the values belong.
    UNKNOWN_AXIS = "resolve::unknown_axis";
    /// A sweep without axes, or an axis without values, has no points, so nothing would run. `peftc explain sweep` shows
    /// how sweeps are written.
    EMPTY_SWEEP = "resolve::empty_sweep";
    /// A `let` stands in two sweeps, and can take one value at a time only. Put all its values into one list.
    AXIS_TWICE = "resolve::axis_twice";
    /// `zip` takes the first values of all its axes, then the second ones, and so on, so all have equally many. `grid`
    /// combines lists of any lengths.
    UNEQUAL_AXES = "resolve::unequal_axes";
    /// A sweep names one combination of values twice; the second would be the first again. Remove it.
    REPEATED_POINT = "resolve::repeated_point";
    /// Sweeps multiply, and a recipe has at most 2,000 points, which come to at most 4,000 different stages. Remove values, or pair axes with `zip`.
    TOO_MANY_POINTS = "resolve::too_many_points";
    /// The values of an axis change nothing: no stage uses the `let`, or all stages come out the same. Every point of the
    /// axis would be the same work under another name.
    AXIS_WITHOUT_EFFECT = "resolve::axis_without_effect";
    /// The language has this, but the compiler does not carry it out yet. Nothing is skipped silently.
    NOT_BUILT_YET = "resolve::not_built_yet";
}
