//! The table of cards: a row each, figures from the makers' data sheets and white papers.
//!
//! Rates are dense and at the boost clock; laptops are counted at the highest power their makers allow.
//! Memory is what drivers list: on cards that correct errors in GDDR, a sixteenth less than printed on the
//! box.

use super::Card;

macro_rules! cards {
    ($($name:literal $product:literal $memory:literal $bandwidth:literal $f32:literal $tf32:literal $half:literal $capability:tt $sm:literal;)+) => {
        /// Every card, consumer cards first.
        pub static CARDS: &[Card] = &[$(Card {
            name: $name,
            product: $product,
            memory_mib: $memory,
            bandwidth: $bandwidth,
            f32: $f32,
            tf32: $tf32,
            half: $half,
            capability: $capability,
            multiprocessors: $sm,
        },)+];
    };
}

// name, product, memory (MiB), bandwidth (GB/s), f32, TF32, f16/bf16 (GFLOP/s), capability, multiprocessors
cards! {
    // GeForce and Titan
    "gtx1650-4gb"           "GeForce GTX 1650"                                 4096   128     2984          0       5967 ( 7, 5)   14;
    "gtx1660-6gb"           "GeForce GTX 1660"                                 6144   192     5027          0     10_053 ( 7, 5)   22;
    "gtx1660super-6gb"      "GeForce GTX 1660 SUPER"                           6144   336     5027          0     10_053 ( 7, 5)   22;
    "gtx1660ti-6gb"         "GeForce GTX 1660 Ti"                              6144   288     5437          0     10_875 ( 7, 5)   24;
    "rtx2060-6gb"           "GeForce RTX 2060"                                 6144   336     6451          0     25_805 ( 7, 5)   30;
    "rtx2060-12gb"          "GeForce RTX 2060"                               12_288   336     7181          0     28_723 ( 7, 5)   34;
    "rtx2060super-8gb"      "GeForce RTX 2060 SUPER"                           8192   448     7181          0     28_723 ( 7, 5)   34;
    "rtx2070-8gb"           "GeForce RTX 2070"                                 8192   448     7465          0     29_860 ( 7, 5)   36;
    "rtx2070super-8gb"      "GeForce RTX 2070 SUPER"                           8192   448     9062          0     36_250 ( 7, 5)   40;
    "rtx2080-8gb"           "GeForce RTX 2080"                                 8192   448   10_068          0     40_270 ( 7, 5)   46;
    "rtx2080super-8gb"      "GeForce RTX 2080 SUPER"                           8192   496   11_151          0     44_600 ( 7, 5)   48;
    "rtx2080ti-11gb"        "GeForce RTX 2080 Ti"                            11_264   616   13_448          0     53_790 ( 7, 5)   68;
    "titanrtx-24gb"         "TITAN RTX"                                      24_576   672   16_312          0    130_500 ( 7, 5)   72;
    "rtx3050-6gb"           "GeForce RTX 3050"                                 6144   168     6774       6774     13_548 ( 8, 6)   18;
    "rtx3050-8gb"           "GeForce RTX 3050"                                 8192   224     9098       9098     18_196 ( 8, 6)   20;
    "rtx3060-8gb"           "GeForce RTX 3060"                                 8192   240   12_738     12_738     25_475 ( 8, 6)   28;
    "rtx3060-12gb"          "GeForce RTX 3060"                               12_288   360   12_738     12_738     25_475 ( 8, 6)   28;
    "rtx3060ti-8gb"         "GeForce RTX 3060 Ti"                              8192   448   16_197     16_197     32_394 ( 8, 6)   38;
    "rtx3070-8gb"           "GeForce RTX 3070"                                 8192   448   20_314     20_314     40_628 ( 8, 6)   46;
    "rtx3070ti-8gb"         "GeForce RTX 3070 Ti"                              8192   608   21_750     21_750     43_500 ( 8, 6)   48;
    "rtx3080-10gb"          "GeForce RTX 3080"                               10_240   760   29_768     29_768     59_536 ( 8, 6)   68;
    "rtx3080-12gb"          "GeForce RTX 3080"                               12_288   912   30_643     30_643     61_286 ( 8, 6)   70;
    "rtx3080ti-12gb"        "GeForce RTX 3080 Ti"                            12_288   912   34_099     34_099     68_198 ( 8, 6)   80;
    "rtx3090-24gb"          "GeForce RTX 3090"                               24_576   936   35_581     35_581     71_162 ( 8, 6)   82;
    "rtx3090ti-24gb"        "GeForce RTX 3090 Ti"                            24_564  1008   39_997     39_997     79_994 ( 8, 6)   84;
    "rtx4060-8gb"           "GeForce RTX 4060"                                 8188   272   15_114     15_114     30_228 ( 8, 9)   24;
    "rtx4060ti-8gb"         "GeForce RTX 4060 Ti"                              8188   288   22_065     22_065     44_130 ( 8, 9)   34;
    "rtx4060ti-16gb"        "GeForce RTX 4060 Ti"                            16_380   288   22_065     22_065     44_130 ( 8, 9)   34;
    "rtx4070-12gb"          "GeForce RTX 4070"                               12_282   504   29_146     29_146     58_292 ( 8, 9)   46;
    "rtx4070super-12gb"     "GeForce RTX 4070 SUPER"                         12_282   504   35_482     35_482     70_964 ( 8, 9)   56;
    "rtx4070ti-12gb"        "GeForce RTX 4070 Ti"                            12_282   504   40_090     40_090     80_180 ( 8, 9)   60;
    "rtx4070tisuper-16gb"   "GeForce RTX 4070 Ti SUPER"                      16_376   672   44_099     44_099     88_198 ( 8, 9)   66;
    "rtx4080-16gb"          "GeForce RTX 4080"                               16_376   717   48_737     48_737     97_474 ( 8, 9)   76;
    "rtx4080super-16gb"     "GeForce RTX 4080 SUPER"                         16_376   736   52_224     52_224    104_448 ( 8, 9)   80;
    "rtx4090-24gb"          "GeForce RTX 4090"                               24_564  1008   82_575     82_575    165_150 ( 8, 9)  128;
    "rtx5050-8gb"           "GeForce RTX 5050"                                 8151   320   13_169     13_169     26_338 (12, 0)   20;
    "rtx5060-8gb"           "GeForce RTX 5060"                                 8151   448   19_177     19_177     38_354 (12, 0)   30;
    "rtx5060ti-8gb"         "GeForce RTX 5060 Ti"                              8151   448   23_704     23_704     47_408 (12, 0)   36;
    "rtx5060ti-16gb"        "GeForce RTX 5060 Ti"                            16_311   448   23_704     23_704     47_408 (12, 0)   36;
    "rtx5070-12gb"          "GeForce RTX 5070"                               12_227   672   30_867     30_867     61_734 (12, 0)   48;
    "rtx5070ti-16gb"        "GeForce RTX 5070 Ti"                            16_303   896   43_940     43_940     87_880 (12, 0)   70;
    "rtx5080-16gb"          "GeForce RTX 5080"                               16_303   960   56_276     56_276    112_552 (12, 0)   84;
    "rtx5090-32gb"          "GeForce RTX 5090"                               32_607  1792  104_753    104_753    209_506 (12, 0)  170;
    // GeForce in laptops
    "rtx3050laptop-4gb"     "GeForce RTX 3050 Laptop GPU"                      4096   192     7127       7127     14_254 ( 8, 6)   16;
    "rtx3060laptop-6gb"     "GeForce RTX 3060 Laptop GPU"                      6144   336   13_079     13_079     26_158 ( 8, 6)   30;
    "rtx3070laptop-8gb"     "GeForce RTX 3070 Laptop GPU"                      8192   448   16_589     16_589     33_178 ( 8, 6)   40;
    "rtx3070tilaptop-8gb"   "GeForce RTX 3070 Ti Laptop GPU"                   8192   448   17_490     17_490     34_980 ( 8, 6)   46;
    "rtx3080laptop-8gb"     "GeForce RTX 3080 Laptop GPU"                      8192   448   21_012     21_012     42_024 ( 8, 6)   48;
    "rtx3080laptop-16gb"    "GeForce RTX 3080 Laptop GPU"                    16_384   448   21_012     21_012     42_024 ( 8, 6)   48;
    "rtx3080tilaptop-16gb"  "GeForce RTX 3080 Ti Laptop GPU"                 16_384   512   23_608     23_608     47_216 ( 8, 6)   58;
    "rtx4050laptop-6gb"     "GeForce RTX 4050 Laptop GPU"                      6141   192   12_134     12_134     24_268 ( 8, 9)   20;
    "rtx4060laptop-8gb"     "GeForce RTX 4060 Laptop GPU"                      8188   256   14_561     14_561     29_122 ( 8, 9)   24;
    "rtx4070laptop-8gb"     "GeForce RTX 4070 Laptop GPU"                      8188   256   20_045     20_045     40_090 ( 8, 9)   36;
    "rtx4080laptop-12gb"    "GeForce RTX 4080 Laptop GPU"                    12_282   432   33_854     33_854     67_708 ( 8, 9)   58;
    "rtx4090laptop-16gb"    "GeForce RTX 4090 Laptop GPU"                    16_376   576   39_690     39_690     79_380 ( 8, 9)   76;
    "rtx5060laptop-8gb"     "GeForce RTX 5060 Laptop GPU"                      8151   384   16_620     16_620     33_240 (12, 0)   26;
    "rtx5070laptop-8gb"     "GeForce RTX 5070 Laptop GPU"                      8151   384   21_630     21_630     43_260 (12, 0)   36;
    "rtx5070tilaptop-12gb"  "GeForce RTX 5070 Ti Laptop GPU"                 12_227   672   26_145     26_145     52_290 (12, 0)   46;
    "rtx5080laptop-16gb"    "GeForce RTX 5080 Laptop GPU"                    16_303   896   35_128     35_128     70_256 (12, 0)   60;
    "rtx5090laptop-24gb"    "GeForce RTX 5090 Laptop GPU"                    24_463   896   45_343     45_343     90_686 (12, 0)   82;
    // workstations
    "quadrortx6000-24gb"    "Quadro RTX 6000"                                24_576   672   16_312          0    130_500 ( 7, 5)   72;
    "rtxa2000-6gb"          "RTX A2000"                                        6138   288     7987     15_974     31_948 ( 8, 6)   26;
    "rtxa2000-12gb"         "RTX A2000 12GB"                                 12_282   288     7987     15_974     31_948 ( 8, 6)   26;
    "rtxa4000-16gb"         "RTX A4000"                                      16_376   448   19_170     38_340     76_680 ( 8, 6)   48;
    "rtxa5000-24gb"         "RTX A5000"                                      24_564   768   27_770     55_540    111_080 ( 8, 6)   64;
    "rtxa6000-48gb"         "RTX A6000"                                      49_140   768   38_710     77_420    154_840 ( 8, 6)   84;
    "rtx4000ada-20gb"       "RTX 4000 Ada Generation"                        20_475   360   26_730     53_460    106_920 ( 8, 9)   48;
    "rtx6000ada-48gb"       "RTX 6000 Ada Generation"                        49_140   960   91_060    182_120    364_240 ( 8, 9)  142;
    "rtxpro6000-96gb"       "RTX PRO 6000 Blackwell Workstation Edition"     97_887  1792  125_000    251_900    503_800 (12, 0)  188;
    // servers
    "v100-16gb"             "V100"                                           16_384   900   15_700          0    125_000 ( 7, 0)   80;
    "v100-32gb"             "V100"                                           32_768   900   15_700          0    125_000 ( 7, 0)   80;
    "t4-16gb"               "T4"                                             15_360   320     8141          0     65_130 ( 7, 5)   40;
    "a2-16gb"               "A2"                                             15_356   200     4531       9000     18_124 ( 8, 6)   10;
    "a10-24gb"              "A10"                                            23_028   600   31_240     62_500    125_000 ( 8, 6)   72;
    "a10g-24gb"             "A10G"                                           23_028   600   35_000     35_000     70_000 ( 8, 6)   80;
    "a30-24gb"              "A30"                                            24_576   933   10_320     82_000    165_000 ( 8, 0)   56;
    "a40-48gb"              "A40"                                            46_068   696   37_420     74_800    149_700 ( 8, 6)   84;
    "a100-40gb"             "A100"                                           40_960  1555   19_490    156_000    312_000 ( 8, 0)  108;
    "a100-80gb"             "A100"                                           81_920  2039   19_490    156_000    312_000 ( 8, 0)  108;
    "a100pcie-80gb"         "A100 80GB PCIe"                                 81_920  1935   19_490    156_000    312_000 ( 8, 0)  108;
    "l4-24gb"               "L4"                                             23_034   300   30_290     60_500    121_000 ( 8, 9)   58;
    "l40-48gb"              "L40"                                            46_068   864   90_520     90_520    181_050 ( 8, 9)  142;
    "l40s-48gb"             "L40S"                                           46_068   864   91_610    183_000    362_050 ( 8, 9)  142;
    "h100-80gb"             "H100 80GB HBM3"                                 81_559  3350   66_900    494_700    989_400 ( 9, 0)  132;
    "h100pcie-80gb"         "H100 PCIe"                                      81_559  2039   51_200    378_000    756_000 ( 9, 0)  114;
    "h100nvl-94gb"          "H100 NVL"                                       95_830  3938   60_000    417_500    835_000 ( 9, 0)  132;
    "gh200-96gb"            "GH200 480GB"                                    97_871  4000   66_900    494_700    989_400 ( 9, 0)  132;
    "h200-141gb"            "H200"                                          143_771  4800   66_900    494_700    989_400 ( 9, 0)  132;
    "h200nvl-141gb"         "H200 NVL"                                      143_771  4800   60_000    417_500    835_000 ( 9, 0)  132;
    "b200-180gb"            "B200"                                          183_359  8000   75_000  1_125_000  2_250_000 (10, 0)  148;
}
