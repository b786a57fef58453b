//! What the decoders need of an instruction set: words and numbers side by side, one of each row of the matrix.

/// Vectors of `L` words or numbers. All functions are to be called where the processor has the instructions.
pub(super) trait Vectors<const L: usize>: Copy {
    /// `L` words of 32 bits.
    type Words: Copy;
    /// `L` numbers in f32.
    type Floats: Copy;

    /// The same number everywhere.
    unsafe fn splat(x: f32) -> Self::Floats;
    /// The numbers at a place.
    unsafe fn load(from: &[f32; L]) -> Self::Floats;
    /// Writes the numbers to a place.
    unsafe fn store(x: Self::Floats, to: &mut [f32; L]);
    /// The numbers in f16 in the low and in the high halves of the words, widened.
    unsafe fn halves(words: Self::Words) -> [Self::Floats; 2];
    /// `a + b`
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a − b`
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b`
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The numbers whose bits the words are.
    unsafe fn bits(words: Self::Words) -> Self::Floats;
    /// The words as signed numbers.
    unsafe fn numbers(words: Self::Words) -> Self::Floats;
    /// Bits that both have.
    unsafe fn and(words: Self::Words, mask: u32) -> Self::Words;
    /// Bits that one of them has.
    unsafe fn or(a: Self::Words, b: Self::Words) -> Self::Words;
    /// Each word plus a number.
    unsafe fn plus(words: Self::Words, x: i32) -> Self::Words;
    /// Shifted so many bits up.
    unsafe fn up(words: Self::Words, by: u32) -> Self::Words;
    /// Shifted so many bits down, with zeros behind.
    unsafe fn down(words: Self::Words, by: u32) -> Self::Words;
    /// Shifted so many bits down, with the sign behind.
    unsafe fn down_signed(words: Self::Words, by: u32) -> Self::Words;
    /// Entries of a table, by words below 16.
    unsafe fn entries(words: Self::Words, table: &[f32; 16]) -> Self::Floats;
    /// The word at each place.
    unsafe fn word(places: &[*const u8; L]) -> Self::Words;
    /// The four words of 16 bytes at each place: one vector a word.
    unsafe fn four_words(places: &[*const u8; L]) -> [Self::Words; 4];
    /// The eight words of 32 bytes at each place: one vector a word.
    unsafe fn eight_words(places: &[*const u8; L]) -> [Self::Words; 8];

    /// Some bits of each word: `count` from bit `first` on.
    #[inline(always)]
    unsafe fn field(words: Self::Words, first: u32, count: u32) -> Self::Words {
        // SAFETY: passed on.
        unsafe { Self::and(Self::down(words, first), (1 << count) - 1) }
    }
}
